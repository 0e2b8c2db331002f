"""How fast `/test` of the service itself answers while a thousand of its tasks are asleep."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import goals, servers
from benchmarks.clients import Client, client_of, percentile
from tests import serving

TASKS = 1_000
# None of them may wake before the end, or wait for a slot.
LIMITS = {"SLEEP_SECONDS": "3600", "REQUEST_TIMEOUT": "7200", "MAX_RUNNING": "100000"}


def measure() -> Iterator[str]:
    """Put the tasks to sleep, ask as often again, and yield a table."""
    with (
        tempfile.TemporaryDirectory() as directory,
        servers.service(Path(directory), "asgi_app:app", **LIMITS) as server,
        client_of(server) as client,
    ):
        before = _times(client)
        serving.until(lambda: _running(client) == TASKS, seconds=30)
        after = _times(client)
    yield "| `/test`, one request after another | p50 ms | p99 ms |"
    yield "|---|--:|--:|"
    for asleep, times in ((f"0 to {TASKS:,}", before), (f"{TASKS:,} to {2 * TASKS:,}", after)):
        yield f"| {asleep} asleep | {percentile(times, 50):.3f} | {percentile(times, 99):.3f} |"
    yield from goals.compare({"asleep": percentile(after, 99)})


def _times(client: Client) -> list[float]:
    return [client.ask("/test").milliseconds for _ in range(TASKS)]


def _running(client: Client) -> int:
    running: int = json.loads(client.ask("/health").text)["worker"]["running"]
    return running
