"""`python -m afterwards migrate` and `check`, and what is said about wrong words."""

from pathlib import Path

import pytest

from tests.serving import sql
from tests.terminal import command

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

APP = "tests.process.cli_app:app"
AWAY = "postgres://ada:secret@127.0.0.1:1/none"


def test_migrate_makes_tables_once(database_url: str) -> None:
    said = command("migrate", APP, DATABASE_URL=database_url)
    assert (said.returncode, said.stderr) == (0, "")
    assert "tables afterwards_...: made, of version " in said.stdout
    assert "up to date" in command("migrate", "--database", database_url).stdout


def test_migrate_says_from_which_version(database_url: str) -> None:
    command("migrate", "--database", database_url)
    sql(database_url, "UPDATE afterwards_version SET number = 9999")
    said = command("migrate", "--database", database_url)
    assert said.returncode == 1
    assert "9999" in said.stderr
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("migrate",), ("tasks",)])
def test_an_absent_database_is_one_line(words: tuple[str, ...]) -> None:
    said = command(*words, "--database", AWAY)
    assert said.returncode == 1
    assert "the database is unavailable" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def checked(path: str = APP, **variables: str) -> tuple[int, dict[str, str]]:
    said = command("check", path, **variables)
    lines = [line.split(maxsplit=2) for line in said.stdout.splitlines()]
    return said.returncode, {name: f"{word} {text}" for name, word, text in lines}


def test_check_finds_all_well(database_url: str) -> None:
    command("migrate", "--database", database_url)
    status, lines = checked(DATABASE_URL=database_url)
    assert status == 0
    assert list(lines) == ["settings", "database", "tables", "broker", "tasks"]
    assert all(line.startswith("ok ") for line in lines.values())
    assert "notes" in lines["tasks"]


def test_checking_an_url_looks_at_it(database_url: str) -> None:
    command("migrate", "--database", database_url)
    said = command("check", "--database", database_url)
    assert [line.split()[:2] for line in said.stdout.splitlines()] == [
        ["database", "ok"],
        ["tables", "ok"],
    ]
    assert said.returncode == 0


def test_check_misses_tables(database_url: str) -> None:
    status, lines = checked(DATABASE_URL=database_url)
    assert status == 1
    assert lines["tables"].startswith("WRONG there are none")
    assert "migrate" in lines["tables"]


def test_check_makes_no_database(tmp_path: Path) -> None:
    status, _ = checked(DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    assert status == 1
    assert not list(tmp_path.iterdir())


def test_check_finds_a_newer_version(database_url: str) -> None:
    command("migrate", "--database", database_url)
    sql(database_url, "UPDATE afterwards_version SET number = 9999")
    status, lines = checked(DATABASE_URL=database_url)
    assert status == 1
    assert "newer than this code" in lines["tables"]


def test_check_finds_a_dead_database() -> None:
    status, lines = checked(DATABASE_URL=AWAY)
    assert status == 1
    assert lines["settings"].startswith("ok ")
    assert lines["database"].startswith("WRONG cannot be reached")
    assert lines["tasks"].startswith("ok ")
    assert "secret" not in str(lines)


def test_check_finds_a_dead_broker(database_url: str) -> None:
    pytest.importorskip("celery")
    command("migrate", "--database", database_url)
    broker = "amqp://ada:secret@127.0.0.1:1//"
    status, lines = checked(DATABASE_URL=database_url, BROKER_URL=broker)
    assert status == 1
    assert lines["broker"].startswith("WRONG 127.0.0.1:1 cannot be reached")
    assert "secret" not in str(lines)


@pytest.mark.parametrize(
    ("path", "variables"),
    [(APP, {"DRAIN_SECONDS": "-1"}), ("asgi_app:app", {"LOG_LEVEL": "LOUD"})],
)
def test_check_finds_wrong_settings(path: str, variables: dict[str, str]) -> None:
    status, lines = checked(path, **variables)
    assert status == 1
    assert list(lines) == ["settings"]
    assert lines["settings"].startswith("WRONG ")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("asgi_app", "takes module:name, such as main:afterwards"),
        (":app", "takes module:name"),
        ("no_such:app", "there is no module no_such: looked for no_such.py in "),
        ("tests/process/cli_app.py:app", "write tests.process.cli_app:app"),
        (
            "tests.process.cli_app:ap",
            "has no ap; it has tests.process.cli_app:afterwards and tests.process.cli_app:app",
        ),
        ("tests.process.cli_app:bare", "has installed no Afterwards: call install(app)"),
        ("tests.process.cli_app:notes", "is no Afterwards, but of the type function"),
    ],
)
def test_wrong_paths_say_what_to_write(path: str, why: str) -> None:
    said = command("worker", path)
    assert said.returncode == 2
    assert why in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "words", [(), ("work",), ("worker",), ("migrate",), ("tasks",), ("tasks", "show", APP)]
)
def test_wrong_usage_is_status_2(words: tuple[str, ...]) -> None:
    said = command(*words)
    assert said.returncode == 2
    assert said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("words", [(), ("worker",), ("tasks",), ("tasks", "retry")])
def test_help_is_there_for_each_command(words: tuple[str, ...]) -> None:
    said = command(*words, "--help")
    assert said.returncode == 0
    assert said.stdout.startswith("usage: python -m afterwards")
    assert max(map(len, said.stdout.splitlines())) <= 100
