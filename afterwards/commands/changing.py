"""`tasks retry`, `tasks cancel` and `tasks delete`: of ids, or of all that match a filter."""

import asyncio
import getpass
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence

from afterwards.app import Afterwards
from afterwards.commands import Complaint
from afterwards.commands.importing import WRONG_USAGE, named
from afterwards.commands.listing import filter_of, ids_of, rows_of, tell_of_missing
from afterwards.commands.opening import with_tables
from afterwards.commands.table import as_json
from afterwards.model import MOVES
from afterwards.store import Filter
from afterwards.store.changes import Change

DONE = {"retry": "retried", "cancel": "cancelled", "delete": "deleted"}
NOT_DONE = 1


def run(arguments: Namespace) -> int:
    """Say how many tasks it would be, ask, and do it."""
    ids, filter = ids_of(arguments), filter_of(arguments)
    if bool(ids) == (filter != Filter()):
        why = "takes ids or a filter, not both" if ids else "which tasks? Give ids, or a filter"
        raise Complaint(f"{why}, such as --state dead", WRONG_USAGE)
    if not arguments.yes and not sys.stdin.isatty():
        raise Complaint("nobody can be asked here: takes --yes", WRONG_USAGE)
    afterwards = named(arguments)
    if ids:
        return asyncio.run(_change_ids(afterwards, ids, arguments))
    return asyncio.run(_change_all(afterwards, filter, arguments))


async def _change_ids(afterwards: Afterwards, ids: Sequence[str], arguments: Namespace) -> int:
    async with with_tables(afterwards) as store:
        rows = await rows_of(store, ids)
        status = tell_of_missing(ids, rows)
        may = [id for id, row in rows.items() if row.state in MOVES[arguments.verb].before]
        for id in sorted(rows.keys() - {*may}):
            print(f"{id} is {rows[id].state}: {_only(arguments.verb)}", file=sys.stderr)
        if may and not _is_meant(arguments, len(may)):
            return NOT_DONE
        change = {"retry": store.retry, "cancel": store.cancel, "delete": store.delete}
        made = _change(arguments)
        done = sum([await change[arguments.verb](id, made) for id in may])
    _tell(arguments, done)
    return status if done == len(rows) else NOT_DONE


async def _change_all(afterwards: Afterwards, filter: Filter, arguments: Namespace) -> int:
    async with with_tables(afterwards) as store:
        count = await store.count(filter, arguments.verb)
        if count and not _is_meant(arguments, count):
            return NOT_DONE
        change = {
            "retry": store.retry_all,
            "cancel": store.cancel_all,
            "delete": store.delete_all,
        }
        done = await change[arguments.verb](filter, _change(arguments)) if count else 0
    _tell(arguments, done)
    return 0


def _change(arguments: Namespace) -> Change:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return Change(f"command line, {user}", socket.gethostname(), arguments.verb)


def _is_meant(arguments: Namespace, count: int) -> bool:
    if arguments.yes:
        return True
    print(f"{arguments.verb} {_tasks(count)}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False


def _tell(arguments: Namespace, done: int) -> None:
    word = DONE[arguments.verb]
    print(as_json({word: done}) if arguments.json else f"{_tasks(done)} {word}")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _only(verb: str) -> str:
    *states, last = MOVES[verb].before
    return f"only {', '.join(states)} and {last} tasks can be {DONE[verb]}"
