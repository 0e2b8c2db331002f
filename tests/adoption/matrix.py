"""Every way of answering that `install` must see, run in an environment that has FastAPI.

`python matrix.py` prints a line for each case and ends with the number of those that failed.
"""

import asyncio
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import httpx
import starlette
from fastapi import APIRouter, Depends, FastAPI
from fastapi import BackgroundTasks as Injected
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router

from afterwards import Afterwards, current_task_id, task

ran: list[str] = []  # the ids of the tasks that ran


@task()
async def work() -> None:
    ran.append(current_task_id.get())


def attached() -> BackgroundTask:
    return BackgroundTask(work)


async def handler(request: Request) -> JSONResponse:
    return JSONResponse({}, background=attached())


def plain(request: Request) -> JSONResponse:
    return JSONResponse({}, background=attached())


class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("x", background=attached())


async def stream(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingResponse(pieces(), background=attached())


async def file(request: Request) -> FileResponse:
    return FileResponse(__file__, background=attached())


class Raw:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({}, background=attached())(scope, receive, send)


async def fails(request: Request) -> None:
    raise HTTPException(418)


def breaks(request: Request) -> None:
    raise ZeroDivisionError


async def teapot(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("t", 418, background=attached())


class Own(JSONResponse):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


async def own(request: Request) -> JSONResponse:
    return Own({}, background=attached())


def keeping() -> Callable[[Request], Any]:
    kept = JSONResponse({}, background=attached())

    async def keep(request: Request) -> JSONResponse:
        return kept

    return keep


async def nothing(request: Request) -> PlainTextResponse:
    return PlainTextResponse("n")


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


class Setting(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.background = attached()
        return response


class Answering(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return PlainTextResponse("s", background=attached())


@asynccontextmanager
async def own_lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    yield {"resource": 1}


async def with_state(request: Request) -> JSONResponse:
    assert request.state.resource == 1
    assert request.state.task_id
    return JSONResponse({}, background=attached())


async def enqueues(request: Request) -> JSONResponse:
    await request.scope["afterwards"].enqueue(work)
    return JSONResponse({})


def one(route: Any, **options: Any) -> Starlette:
    return Starlette(routes=[route], **options)


def later() -> Starlette:
    app = Starlette()
    app.router.routes.append(Route("/p", handler))
    return app


CASES: dict[str, Callable[[], Starlette]] = {
    "route": lambda: one(Route("/p", handler)),
    "plain": lambda: one(Route("/p", plain)),
    "endpoint": lambda: one(Route("/p", Endpoint)),
    "stream": lambda: one(Route("/p", stream)),
    "file": lambda: one(Route("/p", file)),
    "raw": lambda: one(Route("/p", Raw())),
    "mount": lambda: one(Mount("/p", app=Raw())),
    "exception handler": lambda: one(
        Route("/p", fails), exception_handlers={HTTPException: teapot}
    ),
    "500 handler": lambda: one(Route("/p", breaks), exception_handlers={Exception: teapot}),
    "subclass": lambda: one(Route("/p", own)),
    "kept": lambda: one(Route("/p", keeping())),
    "sub-application": lambda: one(Mount("/p", app=one(Route("/", handler)))),
    "router": lambda: one(Mount("/p", app=Router([Route("/", handler)]))),
    "host": lambda: one(Host("test", app=Router([Route("/p", handler)]))),
    "route middleware": lambda: one(Route("/p", handler, middleware=[Middleware(GZipMiddleware)])),
    "middleware that passes": lambda: one(Route("/p", handler), middleware=[Middleware(Passing)]),
    "middleware that sets": lambda: one(Route("/p", nothing), middleware=[Middleware(Setting)]),
    "middleware that answers": lambda: one(
        Route("/p", nothing), middleware=[Middleware(Answering)]
    ),
    "gzip": lambda: one(Route("/p", handler), middleware=[Middleware(GZipMiddleware)]),
    "own lifespan": lambda: one(Route("/p", with_state), lifespan=own_lifespan),
    "enqueue": lambda: one(Route("/p", enqueues)),
    "later": later,
}


def fast(build: Callable[[FastAPI], None]) -> None:
    def make() -> FastAPI:
        app = FastAPI()
        build(app)
        return app

    CASES[f"fastapi {build.__name__}"] = make


@fast
def injected(app: FastAPI) -> None:
    @app.get("/p")
    async def p(background: Injected) -> dict[str, int]:
        background.add_task(work)
        return {}


@fast
def router(app: FastAPI) -> None:
    routes = APIRouter()

    @routes.get("/p")
    async def p(background: Injected) -> dict[str, int]:
        background.add_task(work)
        return {}

    app.include_router(routes)


@fast
def dependency(app: FastAPI) -> None:
    async def resource() -> AsyncIterator[int]:
        yield 1

    @app.get("/p")
    async def p(background: Injected, it: int = Depends(resource)) -> dict[str, int]:
        background.add_task(work)
        return {}


@fast
def model(app: FastAPI) -> None:
    @app.get("/p", response_model=dict)
    def p(background: Injected) -> dict[str, int]:
        background.add_task(work)
        return {}


@fast
def added_in_a_dependency(app: FastAPI) -> None:
    def add(background: Injected) -> None:
        background.add_task(work)

    @app.get("/p")
    async def p(it: None = Depends(add)) -> dict[str, int]:
        return {}


@fast
def response(app: FastAPI) -> None:
    @app.get("/p")
    async def p() -> PlainTextResponse:
        return PlainTextResponse("x", background=attached())


@fast
def mounted(app: FastAPI) -> None:
    inner = FastAPI()

    @inner.get("/")
    async def p(background: Injected) -> dict[str, int]:
        background.add_task(work)
        return {}

    app.mount("/p", inner)


async def told(app: Any, what: str, asked: Any, answers: Any) -> None:
    await asked.put({"type": f"lifespan.{what}"})
    answer = await answers.get()
    assert answer["type"] == f"lifespan.{what}.complete", answer


async def check(make: Callable[[], Starlette], url: str, requests: int) -> None:
    ran.clear()
    app, afterwards = make(), Afterwards(url, drain_seconds=5)
    afterwards.install(app)
    asked: asyncio.Queue[Any] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "app": app, "state": (state := dict[str, Any]())}
    life = asyncio.ensure_future(app(scope, asked.get, answers.put))
    await told(app, "startup", asked, answers)

    async def with_lifespan_state(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {**state}}, receive, send)

    transport = httpx.ASGITransport(with_lifespan_state, raise_app_exceptions=False)
    ids = []
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", follow_redirects=True
    ) as client:
        for _ in range(requests):
            ids += (await client.get("/p")).headers.get_list("task-id")
    rows = [await afterwards.store.get(id) for id in ids]
    await told(app, "shutdown", asked, answers)
    await life
    assert len(ids) == requests, ids
    assert all(rows), "a Task-Id without a row"
    assert sorted(ran) == sorted(ids), (ran, ids)


async def main() -> int:
    print("starlette", starlette.__version__, "fastapi", fastapi.__version__)
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for number, (name, make) in enumerate(CASES.items()):
            url = f"sqlite:///{Path(directory)}/{number}.db"
            try:
                await check(make, url, 2 if name == "kept" else 1)
                print("ok  ", name)
            except Exception:
                failed += 1
                print("FAIL", name, traceback.format_exc(limit=-2))
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
