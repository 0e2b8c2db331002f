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
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from afterwards import Afterwards, task
from afterwards.skywalking import SkyWalking
from tests.lifespan import living

skywalking, others = SkyWalking(sys.argv[1] or None), SkyWalking(sys.argv[1] or None)

@task()
async def work(): ...

async def handler(request):
    return PlainTextResponse("ok", background=BackgroundTask(work))

inner = Starlette(routes=[Route("/work", handler)])
inner.add_middleware(others.entry_spans)
app = Starlette(routes=[Mount("/inner", inner), Route("/work", handler)])
afterwards = Afterwards(f"sqlite:///{sys.argv[2]}/tasks.db", tracing=skywalking)
afterwards.install(app)
app.add_middleware(skywalking.entry_spans)
assert not {"skywalking", "grpc"} & set(sys.modules)

async def main():
    async with living(app):
        others.start()
        loaded = {"skywalking", "tracing", "settings"} & set(sys.modules)
        print(skywalking.status(), others.status(), *loaded)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            # Each in a context of its own, as in a server.
            await asyncio.create_task(client.get("/inner/work"))
            await others.stop()
            await asyncio.create_task(client.get("/work"))
    print(skywalking.status(), others.status())

asyncio.run(main())
"""


def run(collector: str, directory: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION, collector, str(directory)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_request_and_task_are_separate_segments(collector: Collector, tmp_path: Path) -> None:
    assert run(collector.address, tmp_path) == ["on on skywalking", "off off"]
    tasks = collector.named("work")
    entries = [*collector.named("GET:/inner/work"), *collector.named("GET:/work")]
    assert (len(entries), len(tasks), len(collector.segments)) == (2, 2, 4)
    assert len({segment.traceId for segment in collector.segments}) == 2
    assert {root(task).refs[0].parentTraceSegmentId for task in tasks} == {
        entry.traceSegmentId for entry in entries
    }
    told = tags(root(tasks[0]))
    assert told.pop("task.id").startswith("task-")
    assert int(told.pop("task.wait_ms")) >= 0
    assert told == {
        "task.name": "work",
        "task.attempt": "1",
        "task.outcome": "succeeded",
    }


def test_without_collector_no_agent_is_imported(tmp_path: Path) -> None:
    assert run("", tmp_path) == ["off off", "off off"]
