"""`check`: says what is set up and well, and of the rest what to do."""

import asyncio
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterable

from afterwards import registry
from afterwards.app import Afterwards
from afterwards.brokers import BrokerUnavailable
from afterwards.commands import Complaint
from afterwards.commands.importing import WRONG_USAGE, named
from afterwards.commands.opening import address, is_missing_file, opened
from afterwards.errors import DatabaseUnavailable
from afterwards.redaction import in_a_line
from afterwards.store import migrations

Look = Callable[[Afterwards], Awaitable[str]]  # what is well; raises Complaint for what is not

MIGRATE = "`python -m afterwards migrate`, or the next start, makes it so"


def run(arguments: Namespace) -> int:
    """Print a line for each thing that is looked at; return 1 where one is not well."""
    try:
        afterwards = named(arguments)
    except Complaint as complaint:
        if complaint.status == WRONG_USAGE and not arguments.database:
            raise
        print(_line("settings", complaint))
        return 1
    names = LOOKS if arguments.database is None else ("database", "tables")
    return asyncio.run(_check(afterwards, names))


async def _check(afterwards: Afterwards, names: Iterable[str]) -> int:
    complaints = 0
    for name in names:
        look = LOOKS[name]
        try:
            print(_line(name, await look(afterwards)))
        except Complaint as complaint:
            print(_line(name, complaint))
            complaints += 1
    return 1 if complaints else 0


def _line(name: str, found: str | Complaint) -> str:
    word = "WRONG" if isinstance(found, Complaint) else "ok"
    return f"{name:<9} {word:<6} {in_a_line(str(found))}"


async def _settings(afterwards: Afterwards) -> str:
    where = "here" if afterwards.run_tasks and afterwards.broker is None else "by workers elsewhere"
    return f"{address(afterwards)}; tasks are run {where}"


async def _database(afterwards: Afterwards) -> str:
    if is_missing_file(afterwards):
        return "there is no file yet; the first start makes it"
    began = time.monotonic()
    async with opened(afterwards) as store:
        try:
            await store.now()
        except DatabaseUnavailable as error:
            advice = "start it, or mend the URL"
            raise Complaint(f"cannot be reached: {error}; {advice}") from None
    return f"answers, after {1000 * (time.monotonic() - began):.0f} ms"


async def _tables(afterwards: Afterwards) -> str:
    prefix, newest = afterwards.table_prefix, migrations.newest()
    if is_missing_file(afterwards):
        raise Complaint(f"there are none; {MIGRATE}")
    async with opened(afterwards) as store:
        try:
            version = await store.schema_version()
        except DatabaseUnavailable as error:
            raise Complaint(f"cannot be looked at: {error}") from None
    if version is None:
        raise Complaint(f"there are none whose names begin with {prefix}; {MIGRATE}")
    if version > newest:
        raise Complaint(f"of version {version}, newer than this code's {newest}: deploy newer code")
    if version < newest:
        raise Complaint(f"of version {version}, this code's is {newest}; {MIGRATE}")
    return f"{prefix}..., of version {version}"


async def _broker(afterwards: Afterwards) -> str:
    broker = afterwards.make_broker()
    if broker is None:
        return "none is set, and none is needed"
    try:
        await asyncio.to_thread(broker.publish, [])
    except BrokerUnavailable as error:
        advice = "start it, or mend the URL; until then accepted tasks wait"
        raise Complaint(f"{broker.address} cannot be reached: {error}; {advice}") from None
    return f"{broker.address} answers"


async def _functions(afterwards: Afterwards) -> str:
    names = sorted(registry.names())
    if not names:
        raise Complaint("none is registered: import the module whose functions are under @task")
    return f"{len(names)} task functions: {', '.join(names)}"


LOOKS: dict[str, Look] = {
    "settings": _settings,
    "database": _database,
    "tables": _tables,
    "broker": _broker,
    "tasks": _functions,
}
