"""How long a kill -9 delays the tasks that it hits, and how many of them run twice."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from benchmarks import servers
from benchmarks.clients import ask_often
from tests import serving

TASKS, CONNECTIONS = 1_000, 32
MAX_RUNNING = "50"  # with 50 ms each they take a second at least, so that many are left at the kill
APP = "benchmarks.apps:durable"
PATIENCE_SECONDS = 120


def measure() -> Iterator[str]:
    """Have the tasks accepted, kill the server, start it again, and yield what happened to them."""
    with tempfile.TemporaryDirectory() as name:
        directory, diary = Path(name), Path(name, "diary")
        with servers.service(directory, APP, MAX_RUNNING=MAX_RUNNING) as server:
            asyncio.run(_accept(server.port, f"/doze?diary={quote(str(diary))}"))
            killed, killed_us = time.monotonic(), time.time() * 1e6
            server.kill()
        ended, running = _ends(diary)
        yield f"{TASKS:,} tasks accepted; at the kill {ended:,} had ended and {running:,} ran"
        with servers.service(directory, APP, MAX_RUNNING=MAX_RUNNING) as server:
            server.wait_for_log("startup complete")
            yield f"listening again {time.monotonic() - killed:.2f} s after the kill"
            yield from _aftermath(f"sqlite:///{directory}/service.db", diary, killed_us)


async def _accept(port: int, path: str) -> None:
    for connection in await ask_often(port, path, TASKS, CONNECTIONS):
        connection.writer.close()


def _aftermath(database_url: str, diary: Path, killed_us: float) -> Iterator[str]:
    figures = "count(*), max(finished_at), sum(crashes > 0)"
    query = f"SELECT {figures} FROM tasks WHERE state = 'succeeded'"
    serving.until(lambda: serving.sql(database_url, query)[0][0] == TASKS, PATIENCE_SECONDS)
    _, last, crashed = serving.sql(database_url, query)[0]
    started, ended = _counts(diary, "start"), _counts(diary, "end")
    yield f"the last of all {TASKS:,} succeeded {(last - killed_us) / 1e6:.2f} s after the kill"
    lost = TASKS - len(ended)
    twice = f"started twice: {_twice(started)}; ended twice: {_twice(ended)}"
    yield f"rescued: {crashed}; {twice}; lost: {lost}"


def _ends(diary: Path) -> tuple[int, int]:
    ended = len(_counts(diary, "end"))
    return ended, len(_counts(diary, "start")) - ended


def _counts(diary: Path, word: str) -> Counter[str]:
    return Counter(line for line in diary.read_text().splitlines() if line.startswith(word))


def _twice(counts: Counter[str]) -> int:
    return sum(count > 1 for count in counts.values())
