"""An application whose tasks keep a diary: what `python -m afterwards` is tested with.

`DATABASE_URL`, `RUN_TASKS`, `BROKER_URL` and `DRAIN_SECONDS` are its options, `DIARY` is the file
that its tasks write to, `DEAD_SECONDS` quickens the heart.
"""

import asyncio
import os
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from afterwards import Afterwards, rescue, task

DIARY = Path(os.environ.get("DIARY", os.devnull))

if silence := os.environ.get("DEAD_SECONDS"):
    rescue.DEAD_SECONDS, rescue.BEAT_SECONDS = float(silence), float(silence) / 5


def note(word: str) -> None:
    with DIARY.open("a") as diary:
        diary.write(f"{word} {os.getpid()}\n")


def starts() -> int:
    return DIARY.read_text().count("start")


@task()
async def notes(seconds: float = 0.0) -> int:
    note("start")
    await asyncio.sleep(seconds)
    note("end")
    return os.getpid()


@task()
async def ends_the_second_time() -> None:
    note("start")
    if starts() == 1:
        await asyncio.Event().wait()
    note("end")


@task()
async def blocks() -> None:
    note("start")
    time.sleep(60)  # noqa: ASYNC251  # as a careless task function does


@task()
async def clings() -> None:
    note("start")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("clung")


async def accept(request: Request) -> Response:
    return PlainTextResponse("ok", 202, background=BackgroundTask(notes))


afterwards = Afterwards(
    os.environ.get("DATABASE_URL", "sqlite:///data/none.db"),
    broker=os.environ.get("BROKER_URL"),
    run_tasks=os.environ.get("RUN_TASKS") != "0",
    drain_seconds=float(os.environ.get("DRAIN_SECONDS", "20")),
)
app = Starlette(routes=[Route("/", accept, methods=["POST"])])
afterwards.install(app)
bare = Starlette()
