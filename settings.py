"""Every environment variable of the service, once, with its default and its reason.

An empty variable counts as unset, because compose files and dashboards write empty ones. The
agent's own `SW_*` variables are read by the agent; only those that this service looks at itself
stand here.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

# uvicorn's supervisor gives up on this exit code; on any other it restarts for ever.
UVICORN_STARTUP_FAILURE = 3

SQLITE_HEADER = b"SQLite format 3\0"

# What a variable takes, in the words of the line that refuses it; the same words stand in the
# table of docs/settings.md.
SECONDS = "seconds, above 0, at most 86400"
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, description=SECONDS)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400, description="seconds, 0 to 86400")]
Count = Annotated[int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")]
Url = Annotated[str, Field(pattern="^https?://[^/]", description="an http(s) URL")]
Switch = Annotated[bool, Field(description="1 or 0")]
BROKER = "amqp(s)://user:password@host:port/vhost, redis(s)://:password@host:port/0 or sqs://"

# Bytes of a body: it is checked on the event loop, where a mebibyte of fields takes a second.
MAX_BODY = 16 * 1024


class Settings(BaseModel):
    """The settings, by their variables' names in lower case."""

    model_config = ConfigDict(hide_input_in_errors=True)

    port: Annotated[int, Field(ge=1, le=65_535, description="a port, 1 to 65535")] = 8000

    # With a broker, web processes publish to Celery's workers; without one they run them.
    celery_broker_url: Annotated[
        Annotated[str, Field(pattern=r"^((amqps?|rediss?)://[^/]|sqs://)")] | None,
        Field(description=BROKER),
    ] = None

    # With 0 the web process only accepts, and `python -m afterwards worker` runs the tasks.
    run_tasks: Switch = True

    # SQLite needs no server for a first run; a platform's disk forgets, so there it is Postgres.
    database_url: Annotated[
        str,
        Field(
            pattern=r"^(sqlite:///[^:]|postgres(ql)?(\+asyncpg)?://.)",
            description="sqlite:///path (a file's) or postgres://user:password@host:port/name",
        ),
    ] = "sqlite:///data/service.db"

    # The mail goes over the first of these that is set; with none it is written to the log.
    smtp_url: Annotated[
        Annotated[str, Field(pattern="^smtps?://[^/]")] | None,
        Field(description="smtp://user:password@host:port or smtps://user:password@host:port"),
    ] = None
    sendgrid_api_key: Annotated[str | None, Field(description="a SendGrid API key")] = None
    sendgrid_url: Url = "https://api.sendgrid.com"
    mailgun_api_key: Annotated[
        str | None, Field(description="a Mailgun API key, along with MAILGUN_DOMAIN")
    ] = None
    mailgun_domain: Annotated[
        str | None, Field(description="the domain that MAILGUN_API_KEY sends for")
    ] = None
    mailgun_url: Url = "https://api.mailgun.net"
    mail_from: Annotated[str, Field(description="an e-mail address")] = "welcome@example.com"

    discord_webhook_url: Annotated[Url | None, Field(description="an http(s) URL")] = None

    images_dir: Annotated[Path, Field(description="a directory")] = Path("data/images")
    # Off in production: a fetch of a stranger's URL must not reach the inside of the network.
    allow_private_addresses: Switch = False

    # The demos' simulated work, exactly as long as theirs.
    sleep_seconds: Seconds = 10.0
    notify_seconds: Seconds = 2.0
    work_seconds: Seconds = 3.0

    # A sleeping coroutine is cheap; a thread is not, and eight saturate a small machine.
    max_running: Count = 1000
    task_threads: Count = 8
    # Beyond so many waiting tasks a client is told to come back: what waits for hours helps nobody.
    max_queued: Annotated[
        int, Field(ge=1, le=100_000_000, description="a whole number from 1 to 100000000")
    ] = 100_000
    keep_days: Annotated[float, Field(ge=0, le=36_500, description="days, 0 to 36500")] = 7.0
    request_timeout: Seconds = 60.0
    # Heroku and Render kill 30 s after SIGTERM; 20 leaves room for requests before, traces after.
    drain_seconds: SecondsOrNone = 20.0

    # The operator's routes take this as a bearer token; with none they answer this machine only.
    # A header can carry no others: what a client makes of the rest is its own affair.
    admin_token: Annotated[
        Annotated[str, Field(pattern="^[!-~][ -~]{14,}[!-~]$")] | None,
        Field(description="a secret of at least 16 characters, all of them printable ASCII"),
    ] = None

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Field(description="DEBUG, INFO, WARNING or ERROR"),
    ] = "INFO"
    log_format: Annotated[Literal["text", "json"], Field(description="text or json")] = "text"

    # Heroku and Render set these; with SQLite there, a line at the start warns of the disk.
    dyno: Annotated[str | None, Field(description="Heroku's name for this process")] = None
    render: Annotated[str | None, Field(description="true on Render")] = None

    # The agent starts only when this is set.
    sw_agent_collector_backend_services: Annotated[
        str | None, Field(description="host:port of SkyWalking's OAP")
    ] = None
    # The agent's default is true; its profiler would sample the event loop's thread for every
    # request, so here it is off unless asked for.
    sw_agent_profile_active: Annotated[bool, Field(description="true or false")] = False
    # What Celery's workers consume counts as requests, and would hide those of the service.
    sw_worker_name: Annotated[
        str | None, Field(description="a service's name, or nothing for SW_AGENT_NAME-worker")
    ] = None
    # A stranger's `sw8` would put services into the topology that there are not.
    sw8_trusted: Annotated[
        tuple[str, ...] | None, Field(description="networks such as 10.0.0.0/8, or none")
    ] = None

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def in_any_case(cls, value: str, info: Any) -> str:
        return value.upper() if info.field_name == "log_level" else value.lower()

    @field_validator("sw8_trusted", mode="before")
    @classmethod
    def are_networks(cls, value: str) -> Sequence[str]:
        networks = [] if value == "none" else [each.strip() for each in value.split(",")]
        return [str(ip_network(each)) for each in networks]

    @model_validator(mode="after")
    def database_is_one(self) -> Self:
        kind, _, path = self.database_url.partition("?")[0].partition(":///")
        if kind == "sqlite" and _is_no_database(Path(path)):
            takes = "the path of one, or of no file yet"
            raise ValueError(f"DATABASE_URL: {path} is no SQLite database, takes {takes}")
        return self

    @model_validator(mode="after")
    def broker_has_its_package(self) -> Self:
        if self.celery_broker_url and find_spec("celery") is None:
            takes = "`pip install -r requirements-celery.txt`"
            raise ValueError(f"CELERY_BROKER_URL: is set, takes {takes}")
        return self

    @model_validator(mode="after")
    def mailgun_is_whole(self) -> Self:
        if self.mailgun_api_key and not self.mailgun_domain:
            takes = "the domain that MAILGUN_API_KEY sends for"
            raise ValueError(f"MAILGUN_DOMAIN: not set, takes {takes}")
        return self


def _is_no_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_HEADER)) not in (SQLITE_HEADER, b"")
    except OSError:  # none yet, or none that can be read now: both may heal
        return False


# Their values may hold a password or a key, and are never repeated.
SECRET = {
    "database_url",
    "celery_broker_url",
    "smtp_url",
    "sendgrid_api_key",
    "mailgun_api_key",
    "discord_webhook_url",
    "admin_token",
}


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


def for_afterwards(settings: Settings) -> dict[str, Any]:
    """Return what `Afterwards` is made with."""
    return {
        "url": settings.database_url,
        "broker": settings.celery_broker_url,
        "run_tasks": settings.run_tasks,
        "max_running": settings.max_running,
        "threads": settings.task_threads,
        "timeout": settings.request_timeout,
        "max_queued": settings.max_queued,
        "keep_days": settings.keep_days,
        "drain_seconds": settings.drain_seconds,
        "max_keyed_body": MAX_BODY,
    }


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
