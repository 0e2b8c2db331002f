"""Tracing in two lines, as an application that is not this service takes it out of the library."""

import os
import subprocess
import sys
from pathlib import Path

from tests.collector import Collector, root, tags

ROOT = Path(__file__).parents[2]

APPLICATION = """
import asyncio, sys
import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from afterwards.model import Task
from afterwards.skywalking import SkyWalking
from afterwards.slots import LocalEngine

skywalking, others = SkyWalking(sys.argv[1] or None), SkyWalking(sys.argv[1] or None)
assert not {"skywalking", "grpc"} & set(sys.modules)

async def work(): ...

async def handler(request):
    carrier = skywalking.carrier(request.scope)
    engine.start([[Task("task-1", "work", work, is_async=True, carrier=carrier)]])
    return PlainTextResponse("ok")

inner = Starlette(routes=[Route("/work", handler)])
inner.add_middleware(others.entry_spans)
app = Starlette(routes=[Mount("/inner", inner), Route("/work", handler)])
app.add_middleware(skywalking.entry_spans)

async def main():
    global engine
    engine = LocalEngine(max_running=1, threads=1, timeout=9, surrounding=skywalking.attempt)
    skywalking.start()
    others.start()
    print(skywalking.status(), others.status(), *{"skywalking", "tracing", "settings"} & set(sys.modules))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await asyncio.create_task(client.get("/inner/work"))  # a context of its own, as in a server
        await engine.drain(9, print)
        await others.stop()
        await asyncio.create_task(client.get("/work"))
        await engine.drain(9, print)
    await skywalking.stop()
    print(skywalking.status(), others.status())

asyncio.run(main())
"""


def run(collector: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION, collector],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_a_request_and_its_task_are_each_one_segment(collector: Collector) -> None:
    assert run(collector.address) == ["on on skywalking", "off off"]
    tasks = collector.named("work")
    entries = [*collector.named("GET:/inner/work"), *collector.named("GET:/work")]
    assert (len(entries), len(tasks), len(collector.segments)) == (2, 2, 4)
    assert len({segment.traceId for segment in collector.segments}) == 2
    assert {root(task).refs[0].parentTraceSegmentId for task in tasks} == {
        entry.traceSegmentId for entry in entries
    }
    told = tags(root(tasks[0]))
    assert int(told.pop("task.wait_ms")) >= 0
    assert told == {
        "task.id": "task-1",
        "task.name": "work",
        "task.attempt": "1",
        "task.outcome": "succeeded",
    }


def test_without_a_collector_the_agent_is_not_imported() -> None:
    assert run("") == ["off off", "off off"]
