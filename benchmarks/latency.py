"""What a client on one connection sees of durability, and how soon after it a task starts."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import goals, servers
from benchmarks.clients import Client, client_of, percentile
from benchmarks.rows import DURABLE, REFERENCE
from tests import serving

BATCH, BATCHES = 200, 5  # the applications take turns, because a machine's speed changes
STARTS, PAUSE_SECONDS = 500, 0.01  # so that the service is idle when the next request comes
ROWS = (REFERENCE, DURABLE)

Times = Mapping[str, Sequence[float]]


def measure() -> Iterator[str]:
    """Ask both applications in turns, and yield two tables."""
    with ExitStack() as stack:
        services = {}
        for row in ROWS:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            services[row.name] = stack.enter_context(servers.service(directory, row.app))
        connecting = {name: client_of(server) for name, server in services.items()}
        clients = {name: stack.enter_context(each) for name, each in connecting.items()}
        accepts = _accepts(clients)
        starts = {}
        for name, server in services.items():
            with client_of(server) as client:  # uvicorn closes one that is idle for 5 s
                starts[name] = _starts(client)
    yield from _table("request to answer, one after another", accepts)
    yield ""
    yield from _table("answer read to task started, idle", starts)
    durable, in_memory = (percentile(accepts[row.name], 50) for row in (DURABLE, REFERENCE))
    seen = {"accept": durable - in_memory}
    seen |= {f"started p{each}": percentile(starts[DURABLE.name], each) for each in (50, 99)}
    yield from goals.compare(seen)


def _accepts(clients: Mapping[str, Client]) -> Times:
    times: dict[str, list[float]] = {name: [] for name in clients}
    for batch in range(BATCHES + 1):
        for name, client in clients.items():
            asked = [client.ask("/").milliseconds for _ in range(BATCH)]
            times[name] += asked if batch else []  # the first only warms it up
    return times


def _starts(client: Client) -> Sequence[float]:
    """Ask now and then, and compare when each answer had come with when its task began."""
    came = []
    for _ in range(STARTS):
        came.append(client.ask("/tell").came)
        time.sleep(PAUSE_SECONDS)
    began = serving.until(lambda: _all_started(client), seconds=10)
    return [(start - answer) / 1e6 for answer, start in zip(came, began, strict=True)]


def _all_started(client: Client) -> list[int]:
    started: list[int] = json.loads(client.ask("/started").text)["started"]
    return started if len(started) == STARTS else []


def _table(title: str, times: Times) -> Iterator[str]:
    yield f"| {title} | p50 ms | p99 ms |"
    yield "|---|--:|--:|"
    for name, values in times.items():
        yield f"| {name} | {percentile(values, 50):.3f} | {percentile(values, 99):.3f} |"
