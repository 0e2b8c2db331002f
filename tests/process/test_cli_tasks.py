"""`python -m afterwards tasks`: looks at tasks, and changes them, at a terminal and in scripts."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from afterwards import Afterwards
from tests.process import cli_app
from tests.serving import sql
from tests.terminal import at_terminal, command

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

EVIL = "\x1b[2J\x9b31mred\x07 \u202etxt.exe\nforged"
UPDATE = """
UPDATE afterwards_tasks SET state = :state, attempt = 5, error_kind = 'ValueError',
error_message = :message, finished_at = created_at WHERE id = :id
"""


class Tasks:
    """A database with some tasks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.where = ("--database", url)

    def add(self, state: str = "queued", message: str = "as asked") -> str:
        id = Afterwards(self.url).enqueue_sync(cli_app.notes, 0.5)
        if state != "queued":
            sql(self.url, UPDATE, id=id, state=state, message=message)
        return id

    def states(self) -> dict[str, str]:
        return {row.id: row.state for row in sql(self.url, "SELECT * FROM afterwards_tasks")}


@pytest.fixture
def tasks(database_url: str) -> Tasks:
    return Tasks(database_url)


def test_a_list_is_a_table(tasks: Tasks) -> None:
    first, second = tasks.add(), tasks.add("dead")
    said = command("tasks", "list", *tasks.where)
    header, *lines = said.stdout.splitlines()
    assert header.split() == ["ID", "STATE", "TRY", "AGE", "NAME", "ERROR"]
    assert [line.split()[0] for line in lines] == [second, first]
    assert re.fullmatch(
        rf"{second}  dead    5/5  \d+s +notes  ValueError: as asked", lines[0].rstrip()
    )
    assert lines[1].index("notes") == header.index("NAME") == lines[0].index("notes")
    assert said.returncode == 0


def test_list_may_be_left_out(tasks: Tasks) -> None:
    id = tasks.add()
    assert id in command("tasks", "tests.process.cli_app:app", DATABASE_URL=tasks.url).stdout
    assert id in command("tasks", *tasks.where).stdout


@pytest.mark.parametrize(
    ("words", "is_dead_one"),
    [
        (["--state", "dead"], True),
        (["--state", "queued"], False),
        (["--error", "as asked"], True),
        (["--name", "notes", "--limit", "1"], True),
        (["--before", "1d"], None),
        (["--before", "2000-01-01T00:00:00Z"], None),
        (["--name", "no such"], None),
    ],
)
def test_a_filter_leaves_out_others(
    tasks: Tasks, words: list[str], is_dead_one: bool | None
) -> None:
    queued, dead = tasks.add(), tasks.add("dead")
    said = command("tasks", "list", *words, *tasks.where)
    listed = [line.split()[0] for line in said.stdout.splitlines()[1:]]
    assert listed == ([] if is_dead_one is None else [dead if is_dead_one else queued])
    assert ("no task matches" in said.stderr) == (is_dead_one is None)


def test_lists_say_there_are_more(tasks: Tasks) -> None:
    for _ in range(3):
        tasks.add()
    assert "there are more" in command("tasks", "--limit", "2", *tasks.where).stderr
    assert "there are more" not in command("tasks", "--limit", "3", *tasks.where).stderr


def test_json_is_one_object_per_line(tasks: Tasks) -> None:
    id = tasks.add("dead", EVIL)
    [line] = command("tasks", "list", "--json", *tasks.where).stdout.splitlines()
    assert line.isascii()
    assert line.isprintable()
    task = json.loads(line)
    assert (task["id"], task["state"], task["attempt"]) == (id, "dead", 5)
    assert task["error"] == {"kind": "ValueError", "message": EVIL}
    assert task["arguments"] == {"seconds": 0.5}
    assert task["created_at"].endswith("Z")


@pytest.mark.parametrize("columns", [80, 160])
def test_a_table_fits_its_terminal(tasks: Tasks, columns: int) -> None:
    id = tasks.add("dead", "a long story " * 30)
    status, screen = at_terminal("tasks", "list", *tasks.where, columns=columns)
    lines = screen.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith(id)
    assert "ValueError: a long story" in screen
    assert status == 0


@pytest.mark.parametrize("verb", ["list", "show"])
def test_stored_text_cannot_drive_a_terminal(tasks: Tasks, verb: str) -> None:
    id = tasks.add("dead", EVIL)
    _, screen = at_terminal("tasks", verb, *tasks.where, *([id] if verb == "show" else []))
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", screen)
    assert "\nforged" not in screen
    assert r"\x1b[2J" in screen


def test_show_tells_all(tasks: Tasks) -> None:
    id = tasks.add("dead", "two\nlines")
    said = command("tasks", "show", id, *tasks.where)
    assert re.search(rf"^id +{id}$", said.stdout, re.MULTILINE)
    assert re.search(r"^arguments +\{\"seconds\": 0.5\}$", said.stdout, re.MULTILINE)
    assert re.search(r"^error +ValueError: two\n +lines$", said.stdout, re.MULTILINE)
    assert json.loads(command("tasks", "show", id, "--json", *tasks.where).stdout)["id"] == id


def test_an_unknown_task_is_named(tasks: Tasks) -> None:
    id = tasks.add()
    said = command("tasks", "show", "task-0", id, *tasks.where)
    assert said.returncode == 1
    assert "there is no task-0" in said.stderr
    assert id in said.stdout


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [("retry", "dead", "queued"), ("cancel", "queued", "cancelled"), ("delete", "dead", None)],
)
@pytest.mark.parametrize("way", ["ids", "filter"])
def test_a_change_changes_those_meant(
    tasks: Tasks, verb: str, before: str, after: str | None, way: str
) -> None:
    meant, other = tasks.add(before), tasks.add("succeeded")
    words = [meant] if way == "ids" else ["--state", before]
    said = command("tasks", verb, *words, "--yes", *tasks.where)
    assert said.returncode == 0
    assert said.stdout.startswith("1 task ")
    assert tasks.states() == {other: "succeeded"} | ({meant: after} if after else {})


def test_what_cannot_be_changed_is_said(tasks: Tasks) -> None:
    dead, queued = tasks.add("dead"), tasks.add()
    said = command("tasks", "retry", dead, queued, "--yes", *tasks.where)
    assert said.returncode == 1
    assert f"{queued} is queued: only dead and cancelled tasks can be retried" in said.stderr
    assert said.stdout == "1 task retried\n"
    assert tasks.states() == {dead: "queued", queued: "queued"}


def test_a_change_tells_machines_its_count(tasks: Tasks) -> None:
    tasks.add("dead")
    words = ("--state", "dead", "--yes", "--json", *tasks.where)
    assert json.loads(command("tasks", "delete", *words).stdout) == {"deleted": 1}
    assert json.loads(command("tasks", "delete", *words).stdout) == {"deleted": 0}


@pytest.mark.parametrize(("types", "is_done"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked_first(tasks: Tasks, types: str, is_done: bool) -> None:
    ids = [tasks.add("dead"), tasks.add("dead")]
    status, screen = at_terminal("tasks", "retry", "--state", "dead", *tasks.where, types=types)
    assert "retry 2 tasks? [y/N]" in screen
    assert status == (0 if is_done else 1)
    assert set(tasks.states().values()) == {"queued" if is_done else "dead"}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--state", "dead"], "takes --yes"),
        (["--yes"], "which tasks?"),
        (["--yes", "--state", "dead", "task-0"], "not both"),
        (["--yes", "--state", "dying"], "invalid choice"),
        (["--yes", "--before", "yesterday"], "is no moment"),
        (["--yes", "--before", "2026-11-01T00:00:00"], "takes a time zone"),
        (["--yes", "--fast"], "--fast"),
    ],
)
def test_a_doubtful_change_is_refused(tasks: Tasks, words: list[str], why: str) -> None:
    id = tasks.add("dead")
    said = command("tasks", "delete", *words, *tasks.where)
    assert said.returncode == 2
    assert why in said.stderr
    assert id in tasks.states()


def test_a_prefix_finds_its_own_tables(tasks: Tasks) -> None:
    tasks.add()
    other = Afterwards(tasks.url, table_prefix="other_").enqueue_sync(cli_app.notes)
    said = command("tasks", "--table-prefix", "other_", "--json", *tasks.where)
    assert [json.loads(line)["id"] for line in said.stdout.splitlines()] == [other]


def test_no_database_is_made_by_looking(tmp_path: Any) -> None:
    said = command("tasks", "--database", f"sqlite:///{tmp_path}/none.db")
    assert said.returncode == 1
    assert "is no file yet" in said.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def without_tables(database_url: str) -> Callable[..., Any]:
    sql(database_url, "SELECT 1")
    return lambda *words: command(*words, "--database", database_url)


def test_missing_tables_are_said(without_tables: Callable[..., Any]) -> None:
    said = without_tables("tasks")
    assert said.returncode == 1
    assert "has no tables whose names begin with afterwards_" in said.stderr


def test_a_change_says_who_made_it(tasks: Tasks) -> None:
    ids = sorted(tasks.add("dead") for _ in range(3))
    command("tasks", "retry", ids[0], *tasks.where, "--yes")
    command("tasks", "delete", "--state", "dead", *tasks.where, "--yes")
    command("tasks", "delete", ids[0], *tasks.where, "--yes")  # queued: not done, not noted
    rows = sql(tasks.url, "SELECT * FROM changes ORDER BY id")
    assert [(row.what, json.loads(row.which)) for row in rows] == [
        ("retry", ids[:1]),
        ("delete", ids[1:]),
    ]
    assert all(re.fullmatch("command line, .+", row.who) and row.address for row in rows)
