"""How the settings are read: when one is first asked for, and never at an import."""

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from pydantic import ValidationError

from settings.table import SECRET, Settings

# uvicorn's supervisor gives up on this exit code; on any other it restarts for ever.
UVICORN_STARTUP_FAILURE = 3


class WrongSetting(Exception):
    """A variable that holds what it cannot; the text names it, what it got and what it takes."""


def read(environ: Mapping[str, str]) -> Settings:
    """Read the settings out of `environ`; raise `WrongSetting` for the first wrong one."""
    found = {name: environ.get(name.upper(), "") for name in Settings.model_fields}
    given = {name: value for name, value in found.items() if value}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise WrongSetting(_complaint(error, given)) from None


def _complaint(error: ValidationError, given: Mapping[str, str]) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    got = "a value that is not shown" if name in SECRET else repr(given[name])
    return f"{name.upper()}: got {got}, takes {Settings.model_fields[name].description}"


def exit_with(complaint: object) -> NoReturn:
    """End the process with one line that says what is wrong with a setting."""
    print(f"wrong setting: {complaint}", file=sys.stderr)
    raise SystemExit(UVICORN_STARTUP_FAILURE) from None


class _WhenAsked:
    """The settings, read when one is first asked for: importing this module reads nothing."""

    def __getattr__(self, name: str) -> Any:
        if name not in Settings.model_fields:
            raise AttributeError(name)
        vars(self).update(vars(read(os.environ)))
        return vars(self)[name]


settings: Settings = cast(Settings, _WhenAsked())


def read_or_exit() -> Settings:
    """Return the settings; end the process with one line where one is wrong."""
    try:
        settings.port  # noqa: B018  # which reads them all
    except WrongSetting as complaint:
        exit_with(complaint)
    return settings
