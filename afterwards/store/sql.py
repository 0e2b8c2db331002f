"""SQL as plain text, with named fragments where two dialects, prefixes or versions of it differ.

    UPDATE {tasks} SET state = 'cancelled', finished_at = {now}
    WHERE id IN ({each:ids}) AND state {may:cancel}

`{tasks}`, `{workers}`, `{answers}` and `{version}` are the tables under their prefix. `{now}` is
the database's clock. `state {may:verb}` holds where the verb may move the task on. `{each:x}`
selects the texts of the parameter `x`, a JSON array. `{given:a, b bigint}` is a table of the rows
that a statement is executed for, with these columns; text, unless a type is given.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text

from afterwards.model import MOVES

MICROSECONDS = 1_000_000

DEFAULT_PREFIX = "afterwards_"
PREFIX = re.compile(r"([a-z_][a-z0-9_]*)?")
# The longest name is that of an index; Postgres cuts off beyond 63 bytes, and two become one.
LONGEST_PREFIX = 63 - len("answers_created_at")

TABLES = ("tasks", "workers", "answers", "version")

Rows = Sequence[Mapping[str, Any]]

# A time is a count of microseconds since 1970 in UTC, by the clock of the database, so that
# machines whose clocks differ agree on what is due. Delays can be added to it in either dialect.
SQLITE = {
    "now": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
    "lock": "",  # there is one writer at a time
    "skip_locked": "",
    "position": "instr",
    "bytes": "BLOB",
}
POSTGRESQL = {
    # Not clock_timestamp(), which changes within a statement: no index can be searched for what is
    # due by that.
    "now": "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)",
    "lock": "FOR UPDATE",
    "skip_locked": "FOR UPDATE SKIP LOCKED",
    "position": "strpos",
    "bytes": "BYTEA",
}


class _Made:
    """A fragment that is made of what stands after its colon."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self._make = make

    def __format__(self, said: str) -> str:
        return self._make(said)


def _may(verb: str) -> str:
    states = [f"'{state}'" for state in MOVES[verb].before]
    # SQLite finds an index of the rows of one state only by an equation.
    return f"= {states[0]}" if len(states) == 1 else f"IN ({', '.join(states)})"


# Many rows travel as one JSON array, which the database takes apart. So the interpreter's lock is
# let go of once for all rows, not at each of them, and they are written while the event loop goes
# on; and Postgres is asked once.
def _sqlite_given(columns: str) -> str:
    members = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name, _ in _typed(columns))
    return f"(SELECT {members} FROM json_each(:rows)) AS given"


def _postgresql_given(columns: str) -> str:
    typed = ", ".join(f"{name} {type_ or 'TEXT'}" for name, type_ in _typed(columns))
    return f"json_to_recordset(CAST(CAST(:rows AS TEXT) AS JSON)) AS given({typed})"


def _typed(columns: str) -> Iterable[tuple[str, str]]:
    for each in columns.split(","):
        name, _, type_ = each.strip().partition(" ")
        yield name, type_


MADE = {
    "sqlite": SQLITE
    | {
        "given": _Made(_sqlite_given),
        "each": _Made(lambda name: f"SELECT value FROM json_each(:{name})"),
    },
    "postgresql": POSTGRESQL
    | {
        "given": _Made(_postgresql_given),
        "each": _Made(
            lambda name: f"SELECT json_array_elements_text(CAST(CAST(:{name} AS TEXT) AS JSON))"
        ),
    },
}


def parameters(rows: Rows) -> dict[str, str]:
    """Make of the rows what `{given:...}` takes; raise ValueError where one is no JSON."""
    return {"rows": json.dumps(rows, ensure_ascii=False, allow_nan=False)}


def listed(texts: Iterable[str]) -> str:
    """Make of the texts what `{each:...}` takes."""
    return json.dumps(list(texts), ensure_ascii=False)


def check_prefix(prefix: object) -> None:
    """Raise a ValueError for a prefix that no table can have."""
    is_right = (
        isinstance(prefix, str) and PREFIX.fullmatch(prefix) and len(prefix) <= LONGEST_PREFIX
    )
    if not is_right:
        raise ValueError(
            f"table_prefix: {prefix!r} takes lower-case letters, digits and underscores, no"
            f" digit first, {LONGEST_PREFIX} characters at most"
        )


class Sql:
    """What makes statements of one dialect, on tables with this prefix, of their text."""

    def __init__(self, dialect: str, prefix: str) -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self._fragments = {
            **MADE[dialect],
            **{name: prefix + name for name in TABLES},
            "prefix": prefix,
            "may": _Made(_may),
        }
        self._made: dict[str, TextClause] = {}

    def text(self, statement: str) -> str:
        """Give the statement with its fragments put in, as a driver takes it."""
        return self(statement).text

    def __call__(self, statement: str) -> TextClause:
        """Give the statement with its fragments put in, as SQLAlchemy takes it."""
        if (made := self._made.get(statement)) is None:
            made = text(statement.strip().format_map(self._fragments))
            self._made[statement] = made
        return made
