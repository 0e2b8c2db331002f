"""One statement for many rows: they travel as one JSON array, which the database takes apart.

So the interpreter's lock is let go of once for all rows, not at each of them, and the rows are
written while the event loop goes on; and Postgres is asked once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, String, bindparam, cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

Rows = Sequence[Mapping[str, Any]]


class _each(FunctionElement[Any]):
    inherit_cache = True


@compiles(_each, "sqlite")
def _sqlite_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_each, "postgresql")
def _postgres_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSON))"


class _member(FunctionElement[Any]):
    inherit_cache = True


@compiles(_member, "sqlite")
def _sqlite_member(element: Any, compiler: Any, **options: Any) -> str:
    value, name = element.clauses
    return f"json_extract({compiler.process(value, **options)}, '$.{name.value}')"


@compiles(_member, "postgresql")
def _postgres_member(element: Any, compiler: Any, **options: Any) -> str:
    value, name = element.clauses
    return f"({compiler.process(value, **options)} ->> '{name.value}')"


# The rows that a statement is executed for.
given = _each(bindparam("rows", type_=String())).table_valued("value", name="given")


def of_given(name: str, type_: TypeEngine[Any] | None = None) -> ColumnElement[Any]:
    """Refer to what each of the given rows has under this name; text, unless another type is given."""
    return cast(_member(given.c.value, name), type_ or String())


def number_of_given(name: str) -> ColumnElement[int]:
    """Refer to an integer that each of the given rows has under this name."""
    return of_given(name, BigInteger())


def parameters(rows: Rows) -> dict[str, str]:
    """Make of the rows what a statement on `given` takes; raise ValueError where one holds what is not JSON."""
    return {"rows": json.dumps(rows, ensure_ascii=False, allow_nan=False)}
