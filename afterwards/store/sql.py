"""SQL as plain text, with named fragments where two dialects, prefixes or versions of it differ.

    UPDATE {tasks} SET state = 'cancelled', finished_at = {now}
    WHERE id IN ({each:ids}) AND state {may:cancel}

`{tasks}`, `{workers}`, `{answers}`, `{version}` and `{changes}` are the tables under their prefix.
`{now}` is the database's clock. `state {may:verb}` holds where the verb may move the task on.
`{each:x}` selects the texts of the parameter `x`, a JSON array. `{given:NewRow}` is the table
`given` of the rows that a statement is executed for, all of this kind; `{own_columns}` are those
that an UPDATE from it returns of `{tasks}`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

from sqlalchemy import TextClause, text

from afterwards.model import MOVES
from afterwards.store import given
from afterwards.store.given import Mark, Rows

MICROSECONDS = 1_000_000

DEFAULT_PREFIX = "afterwards_"
PREFIX = re.compile(r"([a-z_][a-z0-9_]*)?")
# The longest name is that of an index; Postgres cuts off beyond 63 bytes, and two become one.
LONGEST_PREFIX = 63 - len("answers_created_at")

TABLES = ("tasks", "workers", "answers", "version", "changes")

# Marks what the queue itself executes, for who traces statements: it is machinery.
OWN = "afterwards_own"

# A time is a count of microseconds since 1970 in UTC, by the clock of the database, so that
# machines whose clocks differ agree on what is due. Delays can be added to it in either dialect.
SQLITE = {
    "now": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
    "skip_locked": "",  # there is one writer at a time
    "position": "instr",
    "bytes": "BLOB",
    "body_text": "CAST(body AS TEXT)",
    "ascii": "",  # lower() knows no other letters
}
POSTGRESQL = {
    # Not clock_timestamp(), which changes within a statement: no index can be searched for what is
    # due by that.
    # date_part gives a double, which holds a microsecond; extract a numeric, which is slow.
    "now": "CAST(date_part('epoch', statement_timestamp()) * 1000000 AS BIGINT)",
    "skip_locked": "FOR UPDATE SKIP LOCKED",
    "position": "strpos",
    "bytes": "BYTEA",
    "body_text": "encode(body, 'escape')",
    "ascii": 'COLLATE "C"',  # or lower() would go by the database's language
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


MADE = {
    "sqlite": SQLITE
    | {
        "each": _Made(lambda name: f"SELECT value FROM json_each(:{name})"),
    },
    "postgresql": POSTGRESQL
    | {
        "each": _Made(
            lambda name: f"SELECT json_array_elements_text(CAST(CAST(:{name} AS TEXT) AS JSON))"
        ),
    },
}


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
        self._is_sqlite = dialect == "sqlite"
        self._fragments = {
            **MADE[dialect],
            **{name: prefix + name for name in TABLES},
            "own_columns": "*" if dialect == "sqlite" else f"{prefix}tasks.*",
            "prefix": prefix,
            "may": _Made(_may),
        }
        self._made: dict[tuple[str, int], TextClause] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._in_ones: dict[tuple[str, ...], str] = {}

    def __call__(self, statement: str, count: int = 0) -> TextClause:
        """Return the statement, for so many given rows, as SQLAlchemy takes it."""
        if (made := self._made.get((statement, count))) is None:
            made = text(self._put_in(statement, count, ":given{}".format))
            made = made.execution_options(**{OWN: True})
            self._made[statement, count] = made
        return made

    def text(self, statement: str, count: int = 0) -> str:
        """Return the statement, for so many given rows, as a driver takes it."""
        if (made := self._texts.get((statement, count))) is None:
            mark = "?".format if self._is_sqlite else (lambda at: f"${at + 1}")
            made = self._texts[statement, count] = self._put_in(statement, count, mark)
        return made

    def together(self, batch: Mapping[str, Rows]) -> list[tuple[str, Sequence[Any]]]:
        """Return the statements, as a driver takes them, that execute each of these for its rows.

        On Postgres they are one, which sees nothing of what it does itself.
        """
        filled = {statement: rows for statement, rows in batch.items() if rows}
        if self._is_sqlite:
            return [
                (self.text(statement, given.size(chunk)), given.bound(chunk))
                for statement, rows in filled.items()
                for chunk in given.chunks(rows)
            ]
        values = [*chain.from_iterable(map(given.arrays, filled.values()))]
        return [(self._in_one(tuple(filled)), values)] if filled else []

    def for_rows(self, statement: str, rows: Rows) -> Iterator[tuple[TextClause, dict[str, Any]]]:
        """Return the statements, with their parameters, that are this one for all these rows."""
        for chunk in given.chunks(rows) if self._is_sqlite else [rows]:
            values = given.bound(chunk) if self._is_sqlite else given.arrays(chunk)
            named = {f"given{at}": value for at, value in enumerate(values)}
            yield self(statement, given.size(chunk) if self._is_sqlite else 1), named

    def _in_one(self, statements: tuple[str, ...]) -> str:
        if (made := self._in_ones.get(statements)) is None:
            numbers = count(1)
            *before, last = [
                self._put_in(each, 1, lambda _: f"${next(numbers)}") for each in statements
            ]
            first = ", ".join(f"part{at} AS ({each})" for at, each in enumerate(before))
            made = self._in_ones[statements] = f"WITH {first} {last}" if first else last
        return made

    def _put_in(self, statement: str, count: int, mark: Mark) -> str:
        table = given.sqlite_table if self._is_sqlite else given.postgresql_table
        made = _Made(lambda kind: table(kind, count, mark))
        return statement.strip().format_map({**self._fragments, "given": made})
