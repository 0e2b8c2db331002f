"""What we are measured against: Starlette alone, in processes that never import the library.

An `Afterwards` wraps Starlette's response classes, which would cost the others as well.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from benchmarks import counting

# Unset, or the lines of each attempt would be what is measured.
LOGS = "BENCHMARK_LOGS"
LEVEL = logging.INFO if LOGS in os.environ else logging.WARNING

logging.getLogger().setLevel(LEVEL)

ANSWER = {"status": "processing"}

asleep = 0  # so that a measurement can check that all its tasks sleep
# When each task that tells began (ns), by the clock that all processes share.
started: list[int] = []
kept: set[asyncio.Task[None]] = set()  # the event loop itself keeps only weak references


async def nothing() -> None:
    """Be the task whose cost is all the machinery's, and the counting's."""
    counting.one()


async def sleep() -> None:
    """Sleep for longer than any measurement lasts."""
    global asleep
    asleep += 1
    await asyncio.sleep(3600)


async def tell() -> int:
    """Tell when it started: to this process, and to whoever reads the result."""
    started.append(time.monotonic_ns())
    return started[-1]


async def no_task(request: Request) -> Response:
    return JSONResponse(ANSWER)


async def with_task(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(nothing))


async def with_sleep(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(sleep))


async def with_tell(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(tell))


async def with_bare_sleep(request: Request) -> Response:
    kept.add(asyncio.create_task(sleep()))
    return JSONResponse(ANSWER)


async def count_asleep(request: Request) -> Response:
    return JSONResponse({"asleep": asleep})


async def list_started(request: Request) -> Response:
    return JSONResponse({"started": started})


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as little as ASGI allows: the ceiling of what uvicorn can do here."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json"), (b"content-length", b"23")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"status":"processing"}'})


Handler = Callable[[Request], Awaitable[Response]]
TOLD = [Route("/asleep", count_asleep), Route("/started", list_started)]


def _plain(accept: Handler, go_to_sleep: Handler) -> Starlette:
    own = [Route("/", accept), Route("/sleep", go_to_sleep), Route("/tell", with_tell)]
    return Starlette(routes=[*own, *TOLD])


bare = _plain(no_task, with_bare_sleep)
in_memory = _plain(with_task, with_sleep)
