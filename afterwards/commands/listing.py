"""`tasks list` and `tasks show`."""

import asyncio
import re
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from afterwards.app import Afterwards
from afterwards.commands import Complaint
from afterwards.commands.importing import WRONG_USAGE, named
from afterwards.commands.opening import with_tables
from afterwards.commands.table import as_json, cells, page, table, told
from afterwards.store import Filter
from afterwards.store.tasks import Store

PAGE = 500  # rows that are asked for at once
ID = re.compile(r"task-[0-9a-f-]{1,60}")


def run(arguments: Namespace) -> int:
    """Print the tasks that match, newest first."""
    found = asyncio.run(_found(named(arguments), filter_of(arguments), arguments.limit + 1))
    rows = found[: arguments.limit]
    if arguments.json:
        for row in rows:
            print(as_json(told(row)))
        return 0
    if not rows:
        print("no task matches", file=sys.stderr)
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    now = time.time()
    for line in table([cells(row, now) for row in rows], width):
        print(line)
    if len(found) > len(rows):
        print(f"there are more than these {len(rows)}: --limit shows more", file=sys.stderr)
    return 0


def show(arguments: Namespace) -> int:
    """Print all that is known of each task; return 1 where one is not there."""
    ids = ids_of(arguments)
    if not ids:
        raise Complaint("show which? Give the ids of tasks", WRONG_USAGE)
    rows = asyncio.run(_rows(named(arguments), ids))
    for number, row in enumerate(rows.values()):
        if arguments.json:
            print(as_json(told(row)))
        else:
            print("\n" * bool(number) + "\n".join(page(row)))
    return tell_of_missing(ids, rows)


def ids_of(arguments: Namespace) -> list[str]:
    """Take the ids of tasks out of what was written; what is left is `module:name`."""
    ids = [word for word in arguments.words if ID.fullmatch(word)]
    arguments.words = [word for word in arguments.words if word not in ids]
    return list(dict.fromkeys(ids))


async def rows_of(store: Store, ids: Sequence[str]) -> dict[str, Any]:
    """Return the rows of those tasks that are there."""
    rows = await asyncio.gather(*map(store.get, ids))
    return {id: row for id, row in zip(ids, rows, strict=True) if row is not None}


def filter_of(arguments: Namespace) -> Filter:
    """Return the filter that was written."""
    return Filter(arguments.state, arguments.name, arguments.error, arguments.before)


def tell_of_missing(ids: Sequence[str], rows: dict[str, Any]) -> int:
    """Say which tasks are not there; return the exit status."""
    missing = [id for id in ids if id not in rows]
    for id in missing:
        print(f"there is no {id}: it never was, or was pruned or deleted", file=sys.stderr)
    return 1 if missing else 0


async def _found(afterwards: Afterwards, filter: Filter, limit: int) -> list[Any]:
    rows: list[Any] = []
    async with with_tables(afterwards) as store:
        while len(rows) < limit:
            most = min(PAGE, limit - len(rows))
            after = rows[-1].id if rows else None
            found = await store.page(filter, limit=most, after=after)
            rows.extend(found)
            if len(found) < most:
                break
    return rows


async def _rows(afterwards: Afterwards, ids: Sequence[str]) -> dict[str, Any]:
    async with with_tables(afterwards) as store:
        return await rows_of(store, ids)
