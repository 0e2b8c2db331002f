"""The rows that a statement is executed for, and the table that each dialect makes of them.

Many rows travel in one statement. So the interpreter's lock is let go of once for all rows, not at
each of them, and they are written while the event loop goes on; and Postgres is asked once.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, get_type_hints


class NewRow(NamedTuple):
    """A task as it is inserted: claimed at once by the `worker`, if there is one."""

    id: str
    name: str
    arguments: str
    in_thread: bool
    carrier: str
    max_attempts: int
    worker: str | None
    follows: str | None
    delay_us: int
    publish_after_us: int
    secrets: str | None = None


class WantedRow(NamedTuple):
    """A task that a worker would claim."""

    id: str
    worker: str


class SettledRow(NamedTuple):
    """How an attempt has ended, fenced by its worker and its number."""

    id: str
    worker: str
    attempt: int
    state: str
    delay_us: int = 0
    result: str | None = None
    error_kind: str | None = None
    error_message: str | None = None


class PoisonRow(NamedTuple):
    """How the last attempt at a task that ends its processes has ended, fenced likewise."""

    id: str
    worker: str
    attempt: int
    crashes: int
    error_kind: str
    error_message: str


Row = tuple[Any, ...]
Rows = Sequence[Row]
Mark = Callable[[int], str]  # what stands for the parameter of this number, from 0 on

KINDS: dict[str, type[Row]] = {
    each.__name__: each for each in (NewRow, WantedRow, SettledRow, PoisonRow)
}
SQL_TYPES = {bool: "BOOLEAN", int: "BIGINT"}  # TEXT is any other

# Rows that one statement of SQLite's binds: always a power of two, the last ones of NULLs. So a few
# statements serve all batches, each prepared once, and each batch takes one: at the end of each the
# thread that writes waits for the interpreter's lock.
MOST_ROWS = 256


def columns(kind: str) -> dict[str, str]:
    """Return the columns of this kind of row, and their types in SQL."""
    types = get_type_hints(KINDS[kind])
    return {name: SQL_TYPES.get(type_, "TEXT") for name, type_ in types.items()}


def size(rows: Rows) -> int:
    """Return the number of rows that SQLite's statement for these binds."""
    return 1 << (len(rows) - 1).bit_length()


def chunks(rows: Rows) -> Iterator[Rows]:
    """Cut the rows into what one statement of SQLite's takes."""
    for at in range(0, len(rows), MOST_ROWS):
        yield rows[at : at + MOST_ROWS]


def bound(rows: Rows) -> Sequence[Any]:
    """Return the parameters of SQLite's statement for these rows: one for each of their values."""
    unused = (size(rows) - len(rows)) * len(rows[0])
    return [*chain.from_iterable(rows), *repeat(None, unused)]


def arrays(rows: Rows) -> Sequence[Any]:
    """Return the parameters of Postgres' statement for these rows: an array for each column."""
    return [[*column] for column in zip(*rows, strict=True)]


def sqlite_table(kind: str, count: int, mark: Mark) -> str:
    """Make the table of so many rows of this kind."""
    names = columns(kind)
    members = ", ".join(f"column{number} AS {name}" for number, name in enumerate(names, 1))
    marks = [mark(number) for number in range(count * len(names))]
    rows = (", ".join(marks[at : at + len(names)]) for at in range(0, len(marks), len(names)))
    values = f"(VALUES ({'), ('.join(rows)}))"
    return f"(SELECT {members} FROM {values} WHERE column1 IS NOT NULL) AS given"


def postgresql_table(kind: str, count: int, mark: Mark) -> str:
    """Make the table of rows of this kind, however many."""
    typed = columns(kind)
    members = ", ".join(f"CAST({mark(at)} AS {type_}[])" for at, type_ in enumerate(typed.values()))
    return f"unnest({members}) AS given({', '.join(typed)})"
