"""What a sleeping task costs in memory: the growth of the server's resident set per task."""

import asyncio
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import goals, servers
from benchmarks.clients import ask_often, resident_kib
from tests import serving

CONNECTIONS = 32
WARM_UP_REQUESTS = 1_000  # so that code, caches and connections' buffers do not count as tasks
SPARE_FILES = 200


class Row(NamedTuple):
    """One way to have a task sleep; `holds` says that each of them holds its connection."""

    name: str
    app: str
    holds: bool = False


DURABLE = Row("ours durable, untraced", "benchmarks.apps:durable")
HOLDING = "Starlette's in-memory task, which holds its request open"
ROWS = (
    Row("ours in memory, untraced", "benchmarks.apps:ours"),
    DURABLE,
    Row("a bare asyncio task", "benchmarks.plain:bare"),
    Row(HOLDING, "benchmarks.plain:in_memory", holds=True),
)


def measure(tasks: int) -> Iterator[str]:
    """Have `tasks` tasks sleep in each way, and yield the table line by line."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # the servers inherit it
    yield "| | tasks asleep | KiB each |"
    yield "|---|--:|--:|"
    sizes = {}
    for row in ROWS:
        is_bounded = row.holds and files != resource.RLIM_INFINITY
        count = min(tasks, files - SPARE_FILES) if is_bounded else tasks
        sizes[row] = _kib_of_a_sleeper(row, count)
        yield f"| {row.name} | {count:,} | {sizes[row]:.1f} |"
    yield from goals.compare({"sleeping": sizes[DURABLE]})


def _kib_of_a_sleeper(row: Row, tasks: int) -> float:
    # No agent is there, nor a limit that would keep a task waiting or end its sleep.
    limits = {"MAX_RUNNING": "100000", "REQUEST_TIMEOUT": "3600"}
    with (
        tempfile.TemporaryDirectory() as directory,
        servers.service(Path(directory), row.app, **limits) as server,
    ):
        return asyncio.run(_growth(row, server, tasks)) / tasks


async def _growth(row: Row, server: serving.Server, tasks: int) -> float:
    await ask_often(server.port, "/", WARM_UP_REQUESTS, CONNECTIONS)
    before = resident_kib(server.pid)
    open_ones = await ask_often(server.port, "/sleep", tasks, tasks if row.holds else CONNECTIONS)
    await _until_asleep(server.port, tasks)
    growth = resident_kib(server.pid) - before
    for connection in open_ones:
        connection.writer.close()
    return growth


async def _until_asleep(port: int, tasks: int) -> None:
    (connection,) = await ask_often(port, "/asleep", 1, 1)
    async with asyncio.timeout(30):
        while f'{{"asleep":{tasks}}}' not in await connection.ask("/asleep"):
            pass
    connection.writer.close()
