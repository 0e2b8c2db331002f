import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from web import logs


def _record(text: str, *args: object, **fields: str) -> logging.LogRecord:
    record = logging.LogRecord("tasks", logging.INFO, __file__, 1, text, args, None)
    record.__dict__.update(fields)
    return record


def test_peoples_lines_end_with_ids() -> None:
    line = logs.ForPeople().format(_record("%s sent", "mail", task_id="task-1", trace_id="abc"))
    assert line.endswith("Z INFO    tasks: mail sent  task=task-1  trace=abc")


def test_lines_outside_tasks_name_none() -> None:
    assert (
        logs.ForPeople().format(_record("ready", task_id="", trace_id="")).endswith("tasks: ready")
    )


@pytest.mark.parametrize(
    "control",
    [
        "\r",
        "\x1b[2J",
        "\x00",
        "\x85",
        "\u2028",
        "\x9b",
        "\u202e",
        "\u2066",
        "\u200f",
        "\u200b",
        "\ufeff",
        "\udc80",
    ],
)
def test_control_characters_never_reach_the_log(control: str) -> None:
    line = logs.ForPeople().format(_record("hello %s", f"you{control}2026-01-01 INFO all is well"))
    assert control[0] not in line
    assert len(line.splitlines()) == 1


def test_text_after_line_breaks_is_indented() -> None:
    line = logs.ForPeople().format(
        _record("hello %s", "you\n2026-01-01T00:00:00Z INFO all is well")
    )
    assert line.split("\n")[1] == "    2026-01-01T00:00:00Z INFO all is well"


def test_tracebacks_are_indented_below_their_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        record = _record("failed")
        record.exc_info = (ValueError, error, error.__traceback__)
    first, *rest = logs.ForPeople().format(record).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_machines_lines_are_one_json_object() -> None:
    record = _record("two\nlines", task_id="task-1", trace_id="")
    line = json.loads(logs.ForMachines().format(record))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "tasks", "message": "two\nlines", "task": "task-1"}


@pytest.mark.parametrize(
    "text", ["J\xfcrgen", "\u05d3\u05d5\u05d3", "\u5f20\u4f1f", "\N{PILE OF POO}"]
)
def test_any_persons_name_stays_unchanged(text: str) -> None:
    assert logs.ForPeople().format(_record("hello %s", text)).endswith(f"hello {text}")


@pytest.mark.parametrize("style", [logs.ForPeople(), logs.ForMachines()])
def test_a_line_has_an_end(style: logging.Formatter) -> None:
    record = _record("%s, he said", "x" * 1_000_000)
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = style.format(record)
    assert len(line) < 40_000
    assert "xx [... 983625 characters ...] xx" in line
    assert "he said" in line
    assert "yy [... " in line


@pytest.mark.parametrize("style", [logs.ForPeople(), logs.ForMachines()])
def test_lines_and_tracebacks_tell_no_credentials(style: logging.Formatter) -> None:
    record = _record("no answer from %s", "amqp://me:hunter2@broker")
    try:
        raise ValueError("amqp://me:hunter3@broker")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = style.format(record)
    assert "hunter" not in line
    assert "from amqp://broker" in line
    assert "ValueError: amqp://broker" in line


@pytest.fixture
def made() -> Iterator[Callable[..., logging.LogRecord]]:
    """Make records as the service does once its log is configured."""
    before = logging.getLogRecordFactory()
    logs._put_ids_on_records(str, str)
    yield logging.getLogRecordFactory()
    logging.setLogRecordFactory(before)


def test_the_access_log_holds_no_query(made: Callable[..., logging.LogRecord]) -> None:
    told = ("127.0.0.1:1", "GET", "/tasks?token=secret", "1.1", 200)
    record = made("uvicorn.access", logging.INFO, "", 1, '%s - "%s %s HTTP/%s" %d', told, None)
    assert record.getMessage() == '127.0.0.1:1 - "GET /tasks?... HTTP/1.1" 200'


def test_others_lines_keep_their_words(made: Callable[..., logging.LogRecord]) -> None:
    assert made("tasks", logging.INFO, "", 1, "%s", ("/why?not",), None).getMessage() == "/why?not"
    assert made("uvicorn.error", logging.INFO, "", 1, "why?", (), None).getMessage() == "why?"
    assert (
        made("uvicorn.error", logging.INFO, "", 1, "%(a)s", ({"a": "/b?c"},), None).getMessage()
        == "/b?c"
    )


@pytest.mark.parametrize("is_reported", [True, False])
def test_reported_records_name_their_place(is_reported: bool) -> None:
    told = (
        "import logging; from web import logs\n"
        f"logs.configure('INFO', 'text', str, str, is_reported={is_reported})\n"
        "logging.getLogger().addHandler(told := logging.handlers.BufferingHandler(10))\n"
        "logging.warning('here')\n"
        "print([record.lineno for record in told.buffer])\n"
    )
    written = subprocess.check_output(
        [sys.executable, "-c", "import logging.handlers\n" + told],
        cwd=Path(__file__).parents[2],
        text=True,
        timeout=60,
    )
    assert "root: here\n" in written
    assert written.endswith("[5]\n" if is_reported else "[0]\n")
