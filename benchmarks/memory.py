"""What a sleeping task costs in memory: the growth of the server's resident set, divided by the tasks."""

import asyncio
import re
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import serving

CONNECTIONS = 32
WARM_UP_REQUESTS = 1_000  # so that code, caches and the connections' buffers are not counted as the tasks'
SPARE_FILES = 200


class Row(NamedTuple):
    """One way to have a task sleep; `holds` says that each of them holds its connection."""

    name: str
    app: str
    holds: bool = False


ROWS = (
    Row("ours in memory, untraced", "benchmarks.apps:ours"),
    Row("ours durable, untraced", "benchmarks.apps:durable"),
    Row("a bare asyncio task", "benchmarks.apps:bare"),
    Row("Starlette's in-memory task, which holds its request open", "benchmarks.apps:in_memory", holds=True),
)


def measure(tasks: int) -> Iterator[str]:
    """Have `tasks` tasks sleep in each way, and yield the table line by line."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # the servers inherit it
    yield "| | tasks asleep | KiB each |"
    yield "|---|--:|--:|"
    for row in ROWS:
        count = min(tasks, files - SPARE_FILES) if row.holds and files != resource.RLIM_INFINITY else tasks
        yield f"| {row.name} | {count:,} | {_kib_of_a_sleeper(row, count):.1f} |"


def _kib_of_a_sleeper(row: Row, tasks: int) -> float:
    # The agent is not there, and neither is a limit that would keep a task waiting or end its sleep.
    limits = {"MAX_RUNNING": "100000", "REQUEST_TIMEOUT": "3600"}
    with tempfile.TemporaryDirectory() as directory:
        server = serving.start(Path(directory), app=row.app, args=["--no-access-log"], **limits)
        try:
            return asyncio.run(_growth(row, server, tasks)) / tasks
        finally:
            server.kill()


async def _growth(row: Row, server: serving.Server, tasks: int) -> float:
    await _ask_often(server.port, "/", WARM_UP_REQUESTS, CONNECTIONS)
    before = _resident_kib(server.pid)
    open_ones = await _ask_often(server.port, "/sleep", tasks, tasks if row.holds else CONNECTIONS)
    await _until_asleep(server.port, tasks)
    growth = _resident_kib(server.pid) - before
    for connection in open_ones:
        connection.writer.close()
    return growth


class Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str) -> str:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return (await self.reader.readuntil(b"}")).decode()  # every answer is one JSON object without another in it


async def _ask_often(port: int, path: str, times: int, connections: int) -> list[Connection]:
    """Ask so many times over so many connections, and leave them open."""
    opened = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(connections)]
    for start in range(0, times, connections):
        for group in range(0, min(connections, times - start), CONNECTIONS):
            asking = opened[group : min(group + CONNECTIONS, times - start)]
            await asyncio.gather(*(connection.ask(path) for connection in asking))
    return opened


async def _until_asleep(port: int, tasks: int) -> None:
    (connection,) = await _ask_often(port, "/asleep", 1, 1)
    async with asyncio.timeout(30):
        while f'{{"asleep":{tasks}}}' not in await connection.ask("/asleep"):
            pass
    connection.writer.close()


def _resident_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])
