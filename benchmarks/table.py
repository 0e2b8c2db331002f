"""Requests per second and latencies, as ratios to Starlette with one in-memory task that does nothing."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import load
from tests import serving
from tests.collector import Collector

WARM_UP_SECONDS = 1
QUIET_SECONDS, PATIENCE_SECONDS = 1.0, 15.0  # the collector has received all when nothing came for the first of these


class Row(NamedTuple):
    """One application, the command that serves it, and how many segments a traced request of it makes."""

    name: str
    app: str
    command: Sequence[str] = ("uvicorn",)
    segments: int = 0


REFERENCE = Row("Starlette, one in-memory task", "benchmarks.apps:in_memory")
ROWS = (
    Row("raw ASGI, no task", "benchmarks.apps:raw"),
    Row("Starlette, no task", "benchmarks.apps:bare"),
    Row("FastAPI, one in-memory task", "benchmarks.fastapi_app:app"),
    Row("ours in memory, untraced", "benchmarks.apps:ours"),
    Row("ours in memory, traced", "benchmarks.apps:ours", segments=2),
    Row("ours durable (SQLite, fsync at each commit), untraced", "benchmarks.apps:durable"),
    Row("ours durable (SQLite, fsync at each commit), traced", "benchmarks.apps:durable", segments=2),
    Row("the agent's own plugin, one in-memory task", "benchmarks.apps:in_memory", ("sw-python", "run", "uvicorn"), 1),
)


class Result(NamedTuple):
    """One measurement of one application.

    `cpu` is what the server's process used for a request, in microseconds; `received` is the share of the segments
    that the collector received.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    cpu: float
    received: float | None = None


class Pair(NamedTuple):
    """A row's measurement, and the reference's before and after it: a machine's speed changes within minutes."""

    own: Result
    before: Result
    after: Result

    def ratio(self, field: str) -> float:
        reference: float = (getattr(self.before, field) + getattr(self.after, field)) / 2
        own: float = getattr(self.own, field)
        return own / reference


def measure(rounds: int, seconds: int) -> Iterator[str]:
    """Measure every row once a round, each round in another order, and yield the table line by line."""
    pairs: dict[Row, list[Pair]] = {row: [] for row in ROWS}
    references = []
    with _server(REFERENCE, None) as reference:
        load.run(reference.url, WARM_UP_SECONDS)
        references.append(_loaded(reference, seconds))
        for turn in range(rounds):
            for row in ROWS[turn % len(ROWS) :] + ROWS[: turn % len(ROWS)]:
                own = _result(row, seconds)
                references.append(_loaded(reference, seconds))
                pairs[row].append(Pair(own, *references[-2:]))
    yield "| | requests/s | ratio (lowest, highest) | p50 ms | ratio | p99 ms | ratio | CPU us | segments received |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    yield _line(REFERENCE.name, [Pair(result, result, result) for result in references])
    for row in ROWS:
        yield _line(row.name, pairs[row])


def _result(row: Row, seconds: int) -> Result:
    with ExitStack() as stack:
        collector = stack.enter_context(Collector()) if row.segments else None
        server = stack.enter_context(_server(row, collector))
        load.run(server.url, WARM_UP_SECONDS)
        if collector is None:
            return _loaded(server, seconds)
        before = _all_received(collector)
        result = _loaded(server, seconds)
        made = row.segments * result.requests
        # What was under way when wrk stopped counting is not in its count, but may be in the collector's.
        return result._replace(received=min(1.0, (_all_received(collector) - before) / made))


def _loaded(server: serving.Server, seconds: int) -> Result:
    before = _cpu_seconds(server.pid)
    reading = load.run(server.url, seconds)
    cpu = (_cpu_seconds(server.pid) - before) / reading.requests * 1e6
    return Result(*reading, cpu)


@contextmanager
def _server(row: Row, collector: Collector | None) -> Iterator[serving.Server]:
    variables = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address} if collector else {}
    with tempfile.TemporaryDirectory() as directory:
        server = serving.start(Path(directory), app=row.app, command=row.command, args=["--no-access-log"], **variables)
        try:
            yield server
        finally:
            server.kill()


def _cpu_seconds(pid: int) -> float:
    # The name, which may hold anything, is in brackets before; then user and system time are the 12th and 13th.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _all_received(collector: Collector) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = -1
    while before < (now := len(collector.segments)) and time.monotonic() < deadline:
        before = now
        time.sleep(QUIET_SECONDS)
    return now


def _line(name: str, pairs: list[Pair]) -> str:
    ratios = [pair.ratio("rate") for pair in pairs]
    received = [pair.own.received for pair in pairs if pair.own.received is not None]
    cells = [
        f"{median(pair.own.rate for pair in pairs):,.0f}",
        f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        f"{median(pair.own.p50 for pair in pairs):.2f}",
        f"{median(pair.ratio('p50') for pair in pairs):.2f}",
        f"{median(pair.own.p99 for pair in pairs):.2f}",
        f"{median(pair.ratio('p99') for pair in pairs):.2f}",
        f"{median(pair.own.cpu for pair in pairs):.0f}",
        f"{median(received):.1%}" if received else "",
    ]
    return f"| {name} | {' | '.join(cells)} |"
