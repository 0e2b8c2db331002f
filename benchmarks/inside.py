"""What a request costs inside the application: CPU time without the server's own."""

import asyncio
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import uvloop
from starlette.applications import Starlette

from tests import serving
from tests.collector import Collector
from tests.lifespan import living

CALLERS, REQUESTS, TURNS = 64, 100, 5  # at a time; of each in a turn; the quickest turn counts


class Row(NamedTuple):
    name: str
    app: str
    is_traced: bool = False


ROWS = (
    Row("Starlette, one in-memory task", "benchmarks.plain:in_memory"),
    Row("ours in memory, untraced", "benchmarks.apps:ours"),
    Row("ours in memory, traced", "benchmarks.apps:ours", is_traced=True),
    Row("ours durable (SQLite), untraced", "benchmarks.apps:durable"),
    Row("ours durable (SQLite), traced", "benchmarks.apps:durable", is_traced=True),
)


def measure() -> Iterator[str]:
    """Measure each row in a process of its own, and yield the table line by line."""
    yield "| | CPU us a request | of them the event loop's thread |"
    yield "|---|--:|--:|"
    for row in ROWS:
        with tempfile.TemporaryDirectory() as directory, Collector() as collector:
            environ = {**os.environ, "DATABASE_URL": f"sqlite:///{directory}/service.db"}
            environ["PYTHONPATH"] = str(serving.ROOT)
            if row.is_traced:
                environ["SW_AGENT_COLLECTOR_BACKEND_SERVICES"] = collector.address
            command = [sys.executable, "-m", "benchmarks.inside", row.app]
            quiet = subprocess.DEVNULL
            told = subprocess.check_output(
                command, env=environ, stderr=quiet, text=True, timeout=120
            )
        # Among log lines.
        [(all_threads, this_thread)] = re.findall(r"^CPU (\S+) (\S+)$", told, re.MULTILINE)
        yield f"| {row.name} | {float(all_threads):.0f} | {float(this_thread):.0f} |"


async def _main(name: str) -> None:
    module, _, attribute = name.partition(":")
    app: Starlette = getattr(importlib.import_module(module), attribute)
    async with living(app):
        await _turn(app)  # to warm up
        turns = [await _turn(app) for _ in range(TURNS)]
    process, thread = min(turns)
    sys.stdout.write(f"CPU {process} {thread}\n")  # whole, beside the lines that threads log


async def _turn(app: Starlette) -> tuple[float, float]:
    process, thread = time.process_time(), time.thread_time()
    await asyncio.gather(*(_ask_often(app) for _ in range(CALLERS)))
    each = 1e6 / CALLERS / REQUESTS
    return (time.process_time() - process) * each, (time.thread_time() - thread) * each


async def _ask_often(app: Starlette) -> None:
    for _ in range(REQUESTS):
        await app(_scope(), _receive, _send)
        await asyncio.sleep(0)  # as a server, which reads the next request from a socket


def _scope() -> dict[str, Any]:
    headers = [(b"host", b"127.0.0.1:8000")]
    where = {
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5000),
        "path": "/",
        "raw_path": b"/",
    }
    what = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
    }
    return {"asgi": {"version": "3.0"}, "http_version": "1.1", "state": {}, **where, **what}


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    pass


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
