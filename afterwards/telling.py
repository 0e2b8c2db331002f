"""What a task's row tells, as JSON has it: over HTTP and at a terminal."""

import json
from typing import Any

from afterwards.skywalking.sw8 import parent_of
from afterwards.times import rfc3339

NAMES = ("id", "name", "state", "attempt", "max_attempts", "crashes")
MOMENTS = ("created_at", "run_at", "started_at", "finished_at")


def told(row: Any) -> dict[str, Any]:
    """Return what whoever knows a task's id may know of it."""
    moments = {name: getattr(row, name) for name in MOMENTS}
    parent, kind = parent_of(row.carrier), row.error_kind
    return {
        **{name: getattr(row, name) for name in NAMES},
        **{name: None if moment is None else rfc3339(moment) for name, moment in moments.items()},
        "trace_id": parent.trace_id if parent else None,
        "result": json_of(row, "result"),
        "error": None if kind is None else {"kind": kind, "message": row.error_message},
    }


def told_to_operators(row: Any) -> dict[str, Any]:
    """Return what an operator may know of it: its arguments, too."""
    return {**told(row), "arguments": json_of(row, "arguments")}


def change_told(row: Any) -> dict[str, Any]:
    """Return what an operator changed, or, of a change of many tasks, a part of it."""
    return {
        "id": row.id,
        "at": rfc3339(row.at),
        **{name: getattr(row, name) for name in ("who", "address", "what")},
        "which": json.loads(row.which),
    }


def json_of(row: Any, column: str) -> Any:
    """Read the column; where a list has only its beginning, give that as text, and its rest."""
    text = getattr(row, column)
    if text is None:
        return None
    left_out = getattr(row, f"{column}_length", len(text)) - len(text)
    return f"{text} [... {left_out} characters]" if left_out else json.loads(text)
