"""Every environment variable of the service, once, with its default and its reason.

An empty variable counts as unset, because compose files and dashboards write empty ones. The
agent's own `SW_*` variables are read by the agent; only those that this service looks at itself
stand here.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from settings.kinds import (
    OFF,
    Broker,
    Count,
    Days,
    Hosts,
    Key,
    Origins,
    Proxies,
    Rate,
    Seconds,
    SecondsOrNone,
    Switch,
    TaskRates,
    Tokens,
    Url,
    parted,
)

SQLITE_HEADER = b"SQLite format 3\0"


class Settings(BaseModel):
    """The settings, by their variables' names in lower case."""

    model_config = ConfigDict(hide_input_in_errors=True)

    port: Annotated[int, Field(ge=1, le=65_535, description="a port, 1 to 65535")] = 8000

    # With a broker, web processes publish to Celery's workers; without one they run them.
    celery_broker_url: Broker = None

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
    # Whoever stands between can take away the offer of STARTTLS; not on this machine itself.
    smtp_require_tls: Switch = True
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
    keep_days: Days = 7.0
    # A dead task waits for a person, but what it holds of another must not wait for ever.
    keep_dead_days: Days = 30.0

    # What `@task(secret=...)` names is encrypted with the first, and decrypted with any of them.
    task_secret_key: Annotated[
        Annotated[str, Field(pattern=r"^[!-+\--~]{32,}(,[!-+\--~]{32,})*$")] | None,
        Field(description="a secret of at least 32 characters, or several, with commas between"),
    ] = None
    request_timeout: Seconds = 60.0
    # Heroku and Render kill 30 s after SIGTERM; 20 leaves room for requests before, traces after.
    drain_seconds: SecondsOrNone = 20.0

    # The operator's routes take any of these, several so that one can follow another.
    admin_token: Tokens = None
    # Whoever has one of these looks, and changes nothing.
    admin_read_token: Tokens = None
    # Without any token, the operator's routes answer this machine only, and only with this: a proxy
    # on the machine cannot always be told from a client. `make run` sets it.
    development: Switch = False

    # With a secret users have passwords and tokens, and most routes need one; without it there are
    # none. The previous one's tokens are good, too, as long as they last.
    jwt_secret: Key = None
    jwt_secret_previous: Key = None
    jwt_seconds: Annotated[
        int, Field(ge=1, le=2_592_000, description="whole seconds, 1 to 2592000")
    ] = 3600

    # Requests of one client; off, because nobody can say what is many for your service.
    rate_limit: Rate = OFF
    # On from the start: mail to strangers and guesses at secrets harm others.
    mails_per_recipient: Rate = "5/hour"
    token_guesses: Rate = "10/minute"
    task_rate_limits: TaskRates = None
    # Where they are counted: in memory each process counts for itself.
    rate_limit_storage: Annotated[
        str,
        Field(
            pattern="^(memory|database|rediss?://[^/].*)$",
            description="memory, database or redis(s)://:password@host:port/0",
        ),
    ] = "memory"
    # Whose X-Forwarded-For is believed. Unset: uvicorn's own rule; on Heroku and Render, theirs.
    trusted_proxies: Proxies = None

    # Any, so that a platform's own name for the service works before anybody has set it; in
    # development those of this machine, so that no page's foreign name can lead here.
    allowed_hosts: Hosts = None
    # None: a page that is not the service's own has no business here until somebody says so.
    cors_origins: Origins = None

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
    def previous_secret_has_a_next(self) -> Self:
        if self.jwt_secret_previous and not self.jwt_secret:
            raise ValueError("JWT_SECRET: not set, takes what comes after JWT_SECRET_PREVIOUS")
        return self

    @model_validator(mode="after")
    def readers_only_read(self) -> Self:
        if {*parted(self.admin_token)} & {*parted(self.admin_read_token)}:
            raise ValueError("ADMIN_READ_TOKEN: is in ADMIN_TOKEN, too, takes another secret")
        return self

    @model_validator(mode="after")
    def redis_has_its_package(self) -> Self:
        if self.rate_limit_storage.startswith("redis") and find_spec("redis") is None:
            takes = "`pip install redis`, of requirements-celery.txt"
            raise ValueError(f"RATE_LIMIT_STORAGE: is at Redis, takes {takes}")
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
    "jwt_secret",
    "jwt_secret_previous",
    "admin_read_token",
    "rate_limit_storage",
    "task_secret_key",
}
