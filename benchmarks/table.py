"""Requests a second and latencies, as ratios to Starlette with a no-op task in memory."""

import re
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import counting, goals, load, rows
from benchmarks.clients import cpu_seconds
from benchmarks.rivals import CELERY, QUEUES, TASKFLOW
from benchmarks.rows import DURABLE, REFERENCE, Row, serving_row
from tests import serving
from tests.collector import Collector

WARM_UP_SECONDS = 1
# The collector has received all when nothing came for the first of these.
QUIET_SECONDS, PATIENCE_SECONDS = 1.0, 15.0
WORK_OFF_SECONDS, POLL_SECONDS = 10.0, 0.01  # for what waits when the load has ended
COMPLAINT = re.compile(r"^.*(?:\b(?:WARNING|ERROR|CRITICAL)\b|^Traceback).*$", re.MULTILINE)


class Result(NamedTuple):
    """One measurement of one application.

    `cpu` is what the processes that answer used for a request, in microseconds; `done` is how many
    of the accepted tasks ran a second, from the first request to the last run, and `left` is how
    many had not when the patience for them ended; `received` is the share of the segments that the
    collector received; `complaints` are the warnings and errors that the processes wrote meanwhile.
    """

    requests: int
    failed: int
    rate: float
    p50: float
    p99: float
    cpu: float
    done: float = 0.0
    left: int = 0
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
    """Measure our rows, and yield the table line by line, then the goals."""
    pairs = yield from compared(REFERENCE, (*rows.BARE, *rows.OURS), rounds, seconds)
    if pairs:
        yield from goals.compare(_seen_of_ours(pairs))


def measure_queues(rounds: int, seconds: int) -> Iterator[str]:
    """Measure the other queues beside our durable row, one round less, and yield the same."""
    queues = (DURABLE, TASKFLOW, *QUEUES)
    pairs = yield from compared(REFERENCE, queues, max(1, rounds - 1), seconds)
    if pairs:
        yield from goals.compare(_seen_of_queues(pairs))


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
        "| | fsync | requests/s | ratio (lowest, highest) | end to end/s | left "
        "| p50 ms | ratio | p99 ms | ratio | CPU us | segments received | failed |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
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
    with tempfile.TemporaryDirectory() as name, serving_row(first, runs=Path(name)) as reference:
        runs = Path(name)
        _warm_up(reference, runs)
        references = [_loaded(reference, seconds, runs)]
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
                references.append(_loaded(reference, seconds, runs))
                pairs[row].append(Pair(own, *references[-2:]))
    return references, pairs, failures


def _result(row: Row, seconds: int) -> Result:
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        if not row.segments:
            with serving_row(row, runs=runs) as server:
                if not row.runs:
                    load.run(server.url, WARM_UP_SECONDS)
                    return _loaded(server, seconds, None)
                return _loaded(server, seconds, runs, _warm_up(server, runs))
        with Collector() as collector, serving_row(row, collector, runs) as server:
            waiting = _warm_up(server, runs)
            before = _all_received(collector)
            result = _loaded(server, seconds, runs, waiting)
            made = row.segments * result.requests
            # The collector may count what was under way when wrk stopped counting.
            return result._replace(received=min(1.0, (_all_received(collector) - before) / made))


def _warm_up(server: serving.Server, runs: Path) -> int:
    """Load it for the first time; return how many of its tasks wait even after that."""
    accepted = load.run(server.url, WARM_UP_SECONDS).accepted
    return max(0, accepted - _until_run(runs, accepted))


def _loaded(server: serving.Server, seconds: int, runs: Path | None, waiting: int = 0) -> Result:
    cpu, said = cpu_seconds(server.pid), len(server.log())
    ran = counting.total(runs) if runs else 0
    began = time.monotonic() + load.CONNECTING_SECONDS
    reading = load.run(server.url, seconds)
    cpu = (cpu_seconds(server.pid) - cpu) / max(1, reading.requests) * 1e6
    complaints = tuple(COMPLAINT.findall(server.log()[said:]))
    result = Result(*reading, cpu, complaints=complaints)
    if runs is None:
        return result
    due = waiting + reading.accepted
    if counting.total(runs) - ran >= due:  # all while it was loaded
        return result._replace(done=reading.rate)
    done = min(due, _until_run(runs, ran + due) - ran)
    return result._replace(done=done / (time.monotonic() - began), left=due - done)


def _until_run(runs: Path, count: int) -> int:
    """Wait until so many tasks have run, or for as long as patience lasts; say how many have."""
    deadline = time.monotonic() + WORK_OFF_SECONDS
    while (ran := counting.total(runs)) < count and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return ran


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
        f"{median(pair.own.done for pair in pairs):,.0f}" if row.runs else "",
        f"{median(pair.own.left for pair in pairs):,.0f}" if row.runs else "",
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


def _ratio(pairs: Pairs, row: Row, field: str = "rate") -> float | None:
    measured = pairs.get(row)
    return median(pair.ratio(field) for pair in measured) if measured else None


def _seen_of_ours(pairs: Pairs) -> dict[str, float | None]:
    durable, traced = _ratio(pairs, DURABLE), _ratio(pairs, rows.TRACED)
    logged = _ratio(pairs, rows.LOGGED)
    assert durable is not None, "it needs nothing"
    return {
        "durable": durable,
        "traced": traced,
        "tracing": traced and traced / durable,
        "received": median(pair.own.received or 0.0 for pair in pairs[rows.TRACED]),
        "in memory": _ratio(pairs, rows.IN_MEMORY),
        "in memory, traced": _ratio(pairs, rows.IN_MEMORY_TRACED),
        "postgres": _ratio(pairs, rows.ON_POSTGRES),
        "logged": logged and logged / durable,
        "rabbitmq": _ratio(pairs, rows.FLEET),
        "redis": _ratio(pairs, rows.FLEET_OVER_REDIS),
        "p99": _ratio(pairs, DURABLE, "p99"),
    }


def _seen_of_queues(pairs: Pairs) -> dict[str, float | None]:
    durable = _ratio(pairs, DURABLE)
    assert durable is not None, "it needs nothing"
    queues, celery = ([_ratio(pairs, row) or 0.0 for row in group] for group in (QUEUES, CELERY))
    against = {"fastest": max(queues), "celery": max(celery)}
    return {name: durable / other if other else None for name, other in against.items()}
