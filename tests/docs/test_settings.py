"""docs/settings.md is true: its table holds every setting, with its default."""

import json
import re
from typing import Any

import pytest

from settings import Settings
from tests import pages


def _table() -> dict[str, str]:
    rows = re.findall(
        r"^\| (`[A-Z0-9_`, ]+`) \| (?:`([^`]*)`)? *\|",
        pages.text_of("docs/settings.md"),
        re.MULTILINE,
    )
    return {name: default for names, default in rows for name in re.findall("[A-Z0-9_]+", names)}


def test_the_table_holds_every_setting() -> None:
    assert _table().keys() == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_tables_default_is_the_settings(name: str) -> None:
    default: Any = Settings.model_fields[name].default
    shown = (
        ""
        if default is None
        else json.dumps(default)
        if isinstance(default, bool)
        else f"{default}"
    )
    written = _table()[name.upper()]
    assert written in {shown, shown.removesuffix(".0"), {"false": "0", "true": "1"}.get(shown)}
