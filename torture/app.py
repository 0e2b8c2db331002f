"""The real service with torture's tasks, which note start and end in this process's diary."""

import asyncio
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import asgi_app
import users
from afterwards import InOrder, Later
from afterwards.attempt import current_task_id
from afterwards.registry import task
from torture.records import Book
from torture.shapes import parts_of

# A kill loses nothing of it: what was written to a file outlives its process.
diary = Book(Path(os.environ["TORTURE_DIRECTORY"]), f"diary-{os.getpid()}-{secrets.token_hex(4)}")


def tell_of_life() -> None:
    """Note every moment that this process lives: nobody else sees the end of a suspect's own."""
    while True:
        diary.write(pid=os.getpid(), alive=time.monotonic())
        time.sleep(0.1)


threading.Thread(target=tell_of_life, daemon=True).start()


@contextmanager
def noted(part: str) -> Iterator[None]:
    """Note the start and the end of this run of a task; a killed run leaves its start alone."""
    run = secrets.token_hex(8)
    # The monotonic clock counts from the machine's start: times of several processes compare.
    process = {"pid": os.getpid(), "parent": os.getppid()}
    diary.write(run=run, part=part, task=current_task_id.get(), **process, began=time.monotonic())
    how = "cut"
    try:
        yield
        how = "done"
    except RuntimeError:
        how = "failed"
        raise
    finally:
        diary.write(run=run, how=how, ended=time.monotonic())


@task("torture.sleep")
async def sleep(part: str, seconds: float) -> None:
    with noted(part):
        await asyncio.sleep(seconds)


@task("torture.plain")
def plain(part: str, seconds: float) -> None:
    with noted(part):
        time.sleep(seconds)


@task("torture.flaky", attempts=40, first_pause=0.1, longest_pause=1)
async def flaky(part: str) -> None:
    with noted(part):
        await asyncio.sleep(0)
        if random.random() < 0.5:
            raise RuntimeError("as asked")


@task("torture.doomed", attempts=2, first_pause=0.1)
async def doomed(part: str) -> None:
    with noted(part):
        raise RuntimeError("as asked")


@task("torture.killer")
async def killer(part: str) -> None:
    with noted(part):
        os._exit(9)


def in_order(parts: list[str], seconds: float) -> BackgroundTasks:
    return InOrder([BackgroundTask(sleep, part, seconds) for part in parts])


def several(parts: list[str], seconds: float) -> BackgroundTasks:
    tasks = BackgroundTasks()
    tasks.add_task(sleep, parts[0], seconds)
    tasks.add_task(plain, parts[1], seconds)
    return tasks


def later(parts: list[str], seconds: float) -> Later:
    return Later(datetime.now(UTC) + timedelta(seconds=seconds), sleep, parts[0], 0)


BACKGROUNDS: dict[str, Callable[[list[str], float], BackgroundTask]] = {
    "quick": lambda parts, seconds: BackgroundTask(sleep, parts[0], 0),
    "sleeping": lambda parts, seconds: BackgroundTask(sleep, parts[0], seconds),
    "plain": lambda parts, seconds: BackgroundTask(plain, parts[0], seconds),
    "flaky": lambda parts, seconds: BackgroundTask(flaky, parts[0]),
    "doomed": lambda parts, seconds: BackgroundTask(doomed, parts[0]),
    "in_order": in_order,
    "several": several,
    "later": later,
    "killer": lambda parts, seconds: BackgroundTask(killer, parts[0]),
}


async def attach(request: Request) -> Response:
    order, shape = await request.json(), request.path_params["shape"]
    background = BACKGROUNDS[shape]([*parts_of(order["token"], shape)], order["seconds"])
    return JSONResponse({}, 202, background=background)


async def attach_within(request: Request) -> Response:
    """Add a user named after the token and a task in one transaction, as POST /users/ does."""
    token = (await request.json())["token"]
    afterwards = request.app.state.afterwards
    adding = users.adding(afterwards.database, f"{token}@example.com", token)
    try:
        async with adding as (connection, _):
            for part in parts_of(token, "within"):
                await afterwards.enqueue(sleep, part, 0, within=connection)
    except users.Taken:  # by another request with the same token, and so with the same key
        return JSONResponse({"detail": "there is such a user already"}, 400)
    return JSONResponse({}, 201)


app = asgi_app.app
app.router.routes += [
    Route("/torture/within", attach_within, methods=["POST"]),
    Route("/torture/{shape}", attach, methods=["POST"]),
]
