import json
import logging

import pytest

from observing import logs


def _record(text: str, *args: object, **fields: str) -> logging.LogRecord:
    record = logging.LogRecord("tasks", logging.INFO, __file__, 1, text, args, None)
    record.__dict__.update(fields)
    return record


def test_a_line_for_people_ends_with_the_ids_that_it_has() -> None:
    line = logs.ForPeople().format(_record("%s sent", "mail", task_id="task-1", trace_id="abc"))
    assert line.endswith("Z INFO    tasks: mail sent  task=task-1  trace=abc")


def test_a_line_outside_of_a_task_names_none() -> None:
    assert logs.ForPeople().format(_record("ready", task_id="", trace_id="")).endswith("tasks: ready")


@pytest.mark.parametrize("control", ["\r", "\x1b[2J", "\x00", "\x85", "\u2028", "\x9b"])
def test_a_clients_text_cannot_forge_a_line_or_drive_a_terminal(control: str) -> None:
    line = logs.ForPeople().format(_record("hello %s", f"you{control}2026-01-01 INFO all is well"))
    assert control[0] not in line
    assert len(line.splitlines()) == 1


def test_what_follows_a_line_break_is_indented() -> None:
    line = logs.ForPeople().format(_record("hello %s", "you\n2026-01-01T00:00:00Z INFO all is well"))
    assert line.split("\n")[1] == "    2026-01-01T00:00:00Z INFO all is well"


def test_a_traceback_is_indented_below_its_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        record = _record("failed")
        record.exc_info = (ValueError, error, error.__traceback__)
    first, *rest = logs.ForPeople().format(record).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_a_line_for_machines_is_one_json_object() -> None:
    record = _record("two\nlines", task_id="task-1", trace_id="")
    line = json.loads(logs.ForMachines().format(record))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "tasks", "message": "two\nlines", "task": "task-1"}
