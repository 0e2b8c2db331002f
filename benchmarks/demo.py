"""The demos' comparison: slow work while the client waits, and the same after the answer."""

import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import serving

REQUESTS = 3


def measure() -> Iterator[str]:
    """Ask `/sync-task/` in turn and `/async-task/` at once; yield what a demo prints of it."""
    with tempfile.TemporaryDirectory() as directory:
        server = serving.start(Path(directory))
        try:
            yield from _compare(server.port)
        finally:
            server.kill()


def _compare(port: int) -> Iterator[str]:
    yield f"POST /sync-task/, {REQUESTS} times, one after another:"
    began = time.perf_counter()
    for number in range(1, REQUESTS + 1):
        yield f"  request {number}: {_seconds(port, '/sync-task/'):.3f} s"
    one_after_another = time.perf_counter() - began
    yield f"  total: {one_after_another:.3f} s"

    yield f"POST /async-task/, {REQUESTS} times, at once:"
    began = time.perf_counter()
    with ThreadPoolExecutor(REQUESTS) as pool:
        times = list(pool.map(_seconds, [port] * REQUESTS, ["/async-task/"] * REQUESTS))
    at_once = time.perf_counter() - began
    for number, seconds in enumerate(times, 1):
        yield f"  request {number}: {seconds:.3f} s"
    yield f"  total: {at_once:.3f} s"
    work = "the work itself, after the answers, side by side"
    yield f"  {work}: done {_done(port, began):.1f} s after the first request"
    yield f"speed-up, as the client sees it: {one_after_another / at_once:,.0f}x"


def _seconds(port: int, path: str) -> float:
    began = time.perf_counter()
    _ask(port, "POST", path)
    return time.perf_counter() - began


def _done(port: int, began: float) -> float:
    while sum(_ask(port, "GET", "/health")["worker"].get(key, 0) for key in ("running", "waiting")):
        time.sleep(0.05)
    return time.perf_counter() - began


def _ask(port: int, method: str, path: str) -> dict[str, dict[str, int]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer: dict[str, dict[str, int]] = json.load(connection.getresponse())
        return answer
    finally:
        connection.close()
