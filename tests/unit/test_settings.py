import subprocess
import sys
from pathlib import Path

import pytest

from settings import (
    SECRET,
    Settings,
    WrongSetting,
    for_afterwards,
    for_operators,
    listed,
    read,
)

ROOT = Path(__file__).parents[2]

WRONG = {
    "PORT": "70000",
    "DATABASE_URL": "mysql://me:hunter2@db/name",
    "CELERY_BROKER_URL": "kafka://me:hunter2@host",
    "SMTP_URL": "http://me:hunter2@mail",
    "SMTP_REQUIRE_TLS": "perhaps",
    "SENDGRID_URL": "ftp://api",
    "MAILGUN_URL": "api.mailgun.net",
    "DISCORD_WEBHOOK_URL": "discord.com/hunter2",
    "ALLOW_PRIVATE_ADDRESSES": "perhaps",
    "RUN_TASKS": "perhaps",
    "SLEEP_SECONDS": "ten",
    "NOTIFY_SECONDS": "0",
    "WORK_SECONDS": "-1",
    "MAX_RUNNING": "0",
    "TASK_THREADS": "1.5",
    "REQUEST_TIMEOUT": "inf",
    "MAX_QUEUED": "none",
    "KEEP_DAYS": "-1",
    "KEEP_DEAD_DAYS": "-1",
    "TASK_SECRET_KEY": "hunter2" * 5 + ",hunter2",
    "ADMIN_TOKEN": "hunter2",
    "JWT_SECRET": "hunter2",
    "JWT_SECRET_PREVIOUS": "hunter2" * 5 + "\xfc",
    "JWT_SECONDS": "1.5",
    "ALLOWED_HOSTS": "https://example.com",
    "CORS_ORIGINS": "app.example.com",
    "ADMIN_READ_TOKEN": "hunter2",
    "DEVELOPMENT": "perhaps",
    "DRAIN_SECONDS": "nan",
    "RATE_LIMIT": "100",
    "MAILS_PER_RECIPIENT": "0/hour",
    "TOKEN_GUESSES": "10/fortnight",
    "TASK_RATE_LIMITS": "work",
    "RATE_LIMIT_STORAGE": "memcached://me:hunter2@host",
    "TRUSTED_PROXIES": "10.0.0.1/8",
    "LOG_LEVEL": "LOUD",
    "LOG_FORMAT": "xml",
    "SW_AGENT_PROFILE_ACTIVE": "maybe",
    "SW8_TRUSTED": "10.0.0.1/8",
}

# Any text will do for these: a key, a name, a path.
FREE = {
    "DYNO",
    "RENDER",
    "SENDGRID_API_KEY",
    "MAILGUN_API_KEY",
    "MAILGUN_DOMAIN",
    "MAIL_FROM",
    "IMAGES_DIR",
    "SW_AGENT_COLLECTOR_BACKEND_SERVICES",
    "SW_WORKER_NAME",
}


def test_nothing_set_is_enough() -> None:
    assert read({}) == Settings()


def test_an_empty_variable_counts_as_unset() -> None:
    assert read({"PORT": "", "SMTP_URL": ""}) == Settings()


def test_what_is_set_is_taken() -> None:
    assert read({"PORT": "80", "LOG_LEVEL": "debug", "UNKNOWN": "1"}) == Settings(
        port=80, log_level="DEBUG"
    )


@pytest.mark.parametrize(
    "url", ["postgres://u:p@h/d", "postgresql://u@h:5432/d?sslmode=require", "sqlite:////tmp/x"]
)
def test_the_platforms_database_urls_are_taken(url: str) -> None:
    assert read({"DATABASE_URL": url}).database_url == url


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(
        WrongSetting, match=r"DATABASE_URL: got .*, takes sqlite:///path \(a file's\)"
    ):
        read({"DATABASE_URL": "sqlite:///:memory:"})


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 and so on"])
def test_sqlite_files_are_empty_or_databases(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "service.db"
    path.write_bytes(content)
    assert read({"DATABASE_URL": f"sqlite:///{path}"}).database_url == f"sqlite:///{path}"
    path.write_text("hunter2, and other notes")
    with pytest.raises(
        WrongSetting, match=f"^DATABASE_URL: {path} is no SQLite database, takes the path of one"
    ):
        read({"DATABASE_URL": f"sqlite:///{path}?timeout=1"})


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_refused_value_says_what_fits(name: str, value: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        read({name: value})
    assert str(refused.value).startswith(f"{name}: got ")
    assert str(Settings.model_fields[name.lower()].description) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "token", ["\xfcber" * 8, "tab\tin" * 8, " space before it", "line\n" * 8, "x" * 15]
)
def test_a_token_must_fit_a_header(token: str) -> None:
    with pytest.raises(WrongSetting, match="ADMIN_TOKEN"):
        read({"ADMIN_TOKEN": token})


def test_commas_part_several_tokens() -> None:
    settings = read({"ADMIN_TOKEN": f"{'a' * 16}, {'b' * 16},{'c c' * 8}", "DEVELOPMENT": "1"})
    assert for_operators(settings) == {
        "token": ["a" * 16, "b" * 16, "c c" * 8],
        "read_token": [],
        "development": True,
    }
    for wrong in (f"{'a' * 16},short", f"{'a' * 16},", ","):
        with pytest.raises(WrongSetting, match="ADMIN_TOKEN"):
            read({"ADMIN_TOKEN": wrong})


def test_a_reader_has_no_operators_token() -> None:
    with pytest.raises(WrongSetting, match=r"^ADMIN_READ_TOKEN: is in ADMIN_TOKEN"):
        read({"ADMIN_TOKEN": f"{'a' * 16},{'b' * 16}", "ADMIN_READ_TOKEN": "b" * 16})


@pytest.mark.parametrize("token", ["x" * 16, "with spaces in it", "~!@#$%^&*()_+{}|:<>?"])
def test_any_other_token_is_taken(token: str) -> None:
    assert read({"ADMIN_TOKEN": token}).admin_token == token


@pytest.mark.parametrize("hosts", ["a.com:80", "a.com/", "a.com b.com", "a.*", ",", "a,", "null"])
def test_what_is_no_list_of_origins_is_refused(hosts: str) -> None:
    for name in ("ALLOWED_HOSTS", "CORS_ORIGINS"):
        if (name, hosts) != ("ALLOWED_HOSTS", "null"):  # which a host may well be called
            with pytest.raises(WrongSetting, match=name):
                read({name: hosts})


def test_lists_of_hosts_and_origins_are_taken() -> None:
    hosts, origins = "a.com, *.B.com,[::1],my_host", "https://a.com, http://Localhost:3000,*"
    given = read({"ALLOWED_HOSTS": hosts, "CORS_ORIGINS": origins})
    assert listed(given.allowed_hosts) == ["a.com", "*.b.com", "[::1]", "my_host"]
    assert listed(given.cors_origins) == ["https://a.com", "http://localhost:3000", "*"]
    assert listed(None) == []


def test_secret_keys_may_be_rotated() -> None:
    new, old = "n" * 32, "-o+/=" * 8
    given = for_afterwards(read({"TASK_SECRET_KEY": f"{new},{old}"}))
    assert given["secret_key"] == [new, old]
    assert for_afterwards(read({}))["secret_key"] is None


@pytest.mark.parametrize("name", sorted(SECRET & {name.lower() for name in WRONG}))
def test_a_secret_is_never_repeated(name: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        read({name.upper(): WRONG[name.upper()]})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "networks"),
    [("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1/128")), ("none", ()), ("", None)],
)
def test_trusted_networks_are_a_list(value: str, networks: tuple[str, ...] | None) -> None:
    assert read({"SW8_TRUSTED": value}).sw8_trusted == networks


def test_every_setting_is_refused_or_free() -> None:
    assert {name.upper() for name in Settings.model_fields} == WRONG.keys() | FREE


def test_a_mailgun_key_needs_its_domain() -> None:
    with pytest.raises(WrongSetting, match="MAILGUN_DOMAIN: not set"):
        read({"MAILGUN_API_KEY": "key"})
    assert (
        read({"MAILGUN_API_KEY": "key", "MAILGUN_DOMAIN": "example.com"}).mailgun_domain
        == "example.com"
    )


def test_a_previous_secret_needs_the_next() -> None:
    with pytest.raises(WrongSetting, match="JWT_SECRET: not set"):
        read({"JWT_SECRET_PREVIOUS": "x" * 32})
    both = read({"JWT_SECRET_PREVIOUS": "x" * 32, "JWT_SECRET": "y" * 32})
    assert (both.jwt_secret, both.jwt_secret_previous) == ("y" * 32, "x" * 32)


def test_one_line_refuses_a_wrong_setting() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "asgi_app:app", "--port", "0"],
        env={"PORT": "http"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr == "wrong setting: PORT: got 'http', takes a port, 1 to 65535\n"
    assert ended.returncode == 3


def test_one_line_refuses_a_packageless_broker(tmp_path: Path) -> None:
    missing = "import sys; sys.modules['celery'] = None"
    (tmp_path / "sitecustomize.py").write_text(missing)
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "asgi_app:app", "--port", "0"],
        env={"CELERY_BROKER_URL": "amqp://me:hunter2@host", "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    takes = "takes `pip install -r requirements-celery.txt`"
    assert ended.stderr == f"wrong setting: CELERY_BROKER_URL: is set, {takes}\n"
    assert ended.returncode == 3


def test_one_line_refuses_a_brokerless_worker() -> None:
    pytest.importorskip("celery", reason="pip install -r requirements-celery.txt")
    ended = subprocess.run(
        [sys.executable, "-c", "import celery_app"],
        env={},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr.startswith("wrong setting: CELERY_BROKER_URL: not set, takes the broker")
    assert ended.returncode == 3
