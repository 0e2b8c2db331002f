"""Requests a second and latencies, as ratios to Starlette with a no-op task in memory."""

import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import goals, load
from benchmarks.rows import CELERY, DURABLE, QUEUES, REFERENCE, ROWS, TRACED, Row, serving_row
from tests import serving
from tests.collector import Collector

WARM_UP_SECONDS = 1
# The collector has received all when nothing came for the first of these.
QUIET_SECONDS, PATIENCE_SECONDS = 1.0, 15.0
COMPLAINT = re.compile(r"^.*(?:\b(?:WARNING|ERROR|CRITICAL)\b|^Traceback).*$", re.MULTILINE)


class Result(NamedTuple):
    """One measurement of one application.

    `cpu` is what the process that answers used for a request, in microseconds; `received` is the
    share of the segments that the collector received; `complaints` are the warnings and errors that
    the process wrote meanwhile.
    """

    requests: int
    failed: int
    rate: float
    p50: float
    p99: float
    cpu: float
    received: float | None = None
    complaints: tuple[str, ...] = ()


class Pair(NamedTuple):
    """A row's measurement between two of the reference: a machine's speed changes in minutes."""

    own: Result
    before: Result
    after: Result

    def ratio(self, field: str) -> float:
        reference: float = (getattr(self.before, field) + getattr(self.after, field)) / 2
        own: float = getattr(self.own, field)
        return own / reference


Pairs = dict[Row, list[Pair]]


def measure(rounds: int, seconds: int) -> Iterator[str]:
    """Measure all rows, and yield the table line by line, then the goals."""
    pairs = yield from compared(REFERENCE, ROWS, rounds, seconds)
    if pairs:
        yield from goals.compare(_seen(pairs))


def compared(
    reference: Row, rows: Sequence[Row], rounds: int, seconds: int
) -> Generator[str, None, Pairs]:
    """Measure the rows in each round in another order; yield the table, return what is in it."""
    if complaint := load.missing():
        yield f"left out: {complaint}"
        return {}
    missing = {complaint for row in rows for complaint in row.missing()}
    measurable = [row for row in rows if not row.missing()]
    references, pairs, failures = _measured(reference, measurable, rounds, seconds)
    yield (
        "| | fsync | requests/s | ratio (lowest, highest) | p50 ms | ratio | p99 ms | ratio "
        "| CPU us | segments received | failed |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    yield _line(reference, [Pair(result, result, result) for result in references])
    yield from (_line(row, measured) for row, measured in pairs.items() if measured)
    yield from (f"left out: {complaint}" for complaint in sorted(missing))
    yield from failures
    yield from _complaints(pairs)
    return pairs


def _measured(
    first: Row, rows: list[Row], rounds: int, seconds: int
) -> tuple[list[Result], Pairs, list[str]]:
    failures = []
    pairs: Pairs = {row: [] for row in rows}
    with serving_row(first) as reference:
        load.run(reference.url, WARM_UP_SECONDS)
        references = [_loaded(reference, seconds)]
        for turn in range(rounds):
            for row in rows[turn % len(rows) :] + rows[: turn % len(rows)]:
                try:
                    own = _result(row, seconds)
                except (AssertionError, RuntimeError) as error:
                    if not row.needs:
                        raise
                    # Another's row costs no other its own.
                    failures.append(f"{row.name} ({row.fsync}) failed: {error}")
                    continue
                references.append(_loaded(reference, seconds))
                pairs[row].append(Pair(own, *references[-2:]))
    return references, pairs, failures


def _result(row: Row, seconds: int) -> Result:
    if not row.segments:
        with serving_row(row) as server:
            load.run(server.url, WARM_UP_SECONDS)
            return _loaded(server, seconds)
    with Collector() as collector, serving_row(row, collector) as server:
        load.run(server.url, WARM_UP_SECONDS)
        before = _all_received(collector)
        result = _loaded(server, seconds)
        made = row.segments * result.requests
        # The collector may count what was under way when wrk stopped counting.
        return result._replace(received=min(1.0, (_all_received(collector) - before) / made))


def _loaded(server: serving.Server, seconds: int) -> Result:
    before, said = _cpu_seconds(server.pid), len(server.log())
    reading = load.run(server.url, seconds)
    cpu = (_cpu_seconds(server.pid) - before) / max(1, reading.requests) * 1e6
    return Result(*reading, cpu, complaints=tuple(COMPLAINT.findall(server.log()[said:])))


def _cpu_seconds(pid: int) -> float:
    # After the name, which may hold anything, in its brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _all_received(collector: Collector) -> int:
    """Count the segments, once no more come; a batch whose answer was lost is sent twice."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = -1
    while before < (now := len(collector.segments)) and time.monotonic() < deadline:
        before = now
        time.sleep(QUIET_SECONDS)
    return len({segment.traceSegmentId for segment in collector.segments})


def _line(row: Row, pairs: list[Pair]) -> str:
    ratios = [pair.ratio("rate") for pair in pairs]
    received = [pair.own.received for pair in pairs if pair.own.received is not None]
    cells = [
        row.fsync,
        f"{median(pair.own.rate for pair in pairs):,.0f}",
        f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        f"{median(pair.own.p50 for pair in pairs):.2f}",
        f"{median(pair.ratio('p50') for pair in pairs):.2f}",
        f"{median(pair.own.p99 for pair in pairs):.2f}",
        f"{median(pair.ratio('p99') for pair in pairs):.2f}",
        f"{median(pair.own.cpu for pair in pairs):.0f}",
        f"{median(received):.1%}" if received else "",
        f"{sum(pair.own.failed for pair in pairs):,}",
    ]
    return f"| {row.name} | {' | '.join(cells)} |"


def _complaints(pairs: Pairs) -> Iterator[str]:
    """Yield what the rows' processes complained of: the number, and the first as an example."""
    for row, measured in pairs.items():
        if said := [complaint for pair in measured for complaint in pair.own.complaints]:
            yield f"{row.name} wrote {len(said)} warnings and errors, the first of them: {said[0]}"


def _seen(pairs: Pairs) -> dict[str, float]:
    ratio = {
        row: median(pair.ratio("rate") for pair in measured)
        for row, measured in pairs.items()
        if measured
    }
    queues, celery = ([ratio[row] for row in group if row in ratio] for group in (QUEUES, CELERY))
    received = median(pair.own.received or 0.0 for pair in pairs[TRACED])
    against = {
        name: ratio[DURABLE] / max(others)
        for name, others in (("fastest", queues), ("celery", celery))
        if others
    }
    durable, traced = ratio[DURABLE], ratio[TRACED]
    tracing = {"traced": traced, "tracing": traced / durable, "received": received}
    return {"durable": durable, **against, **tracing}
