"""`migrate`: brings the tables up to date, before a deploy or after one."""

import asyncio
from argparse import Namespace

from afterwards.app import Afterwards
from afterwards.commands.importing import named
from afterwards.commands.opening import address, opened


def run(arguments: Namespace) -> int:
    """Bring the tables up to date, and say from which version to which."""
    print(asyncio.run(_migrate(named(arguments))))
    return 0


async def _migrate(afterwards: Afterwards) -> str:
    async with opened(afterwards) as store:
        before = await store.schema_version()
        await store.make_tables()
        after = await store.schema_version()
    where = f"{address(afterwards)}, tables {afterwards.table_prefix}..."
    if before is None:
        return f"{where}: made, of version {after}"
    if before == after:
        return f"{where}: up to date, of version {after}"
    return f"{where}: brought from version {before} to {after}"
