"""A service whose tasks misbehave in every way: `/fails` attaches the task `fails`, etc."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from afterwards.attempt import current_task_id
from afterwards.registry import task
from asgi_app import ServiceTasks
from web import logs


@task(attempts=1)
async def fails() -> None:
    raise ValueError("as asked")


@task(attempts=1)
async def exits() -> None:
    sys.exit(1)


@task(attempts=1)
async def hangs() -> None:
    await asyncio.Event().wait()


@task(attempts=1)
async def clings() -> None:
    while True:
        try:
            await hangs()
        except asyncio.CancelledError:
            continue


@task(attempts=1)
async def blocks_when_cancelled() -> None:
    try:
        await hangs()
    finally:
        time.sleep(60)  # noqa: ASYNC251 - to block the loop is what this one is for


@task(attempts=1)
def hangs_in_a_thread() -> None:
    threading.Event().wait()


@task(attempts=1)
async def takes_a_second() -> None:
    await asyncio.sleep(1)


def attaching(*functions: Callable[[], Any]) -> Route:
    async def handler(request: Request) -> Response:
        return PlainTextResponse(
            "ok", background=BackgroundTasks([BackgroundTask(each) for each in functions])
        )

    return Route(
        "/" + "+".join(each.__name__ for each in functions),
        handler,
    )


logs.configure("INFO", "text", task_id=current_task_id.get, trace_id=str)

app = Starlette(
    routes=[
        attaching(fails),
        attaching(exits),
        attaching(hangs),
        attaching(clings),
        attaching(blocks_when_cancelled),
        attaching(hangs_in_a_thread),
        attaching(takes_a_second),
        attaching(fails, takes_a_second),
    ],
)
ServiceTasks(
    os.environ["DATABASE_URL"], threads=2, drain_seconds=float(os.environ["DRAIN"])
).install(app)
