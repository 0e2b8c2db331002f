"""docs/adopting.md is true about what is committed when, and what FastAPI does of itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx
import pytest

pytest.importorskip("fastapi", reason="pip install -r requirements-dev.txt")

from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from afterwards import Afterwards, task
from afterwards.errors import Refused
from tests.lifespan import living

pytestmark = pytest.mark.anyio

Next = Callable[[Request], Awaitable[Response]]

ran: set[str] = set()
ended = asyncio.Event()


@task("adopting.work")
async def work(name: str) -> None:
    ran.add(name)
    ended.set()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    global ended
    ran.clear()
    ended = asyncio.Event()


async def _ran() -> set[str]:
    """Wait until the task has run."""
    await asyncio.wait_for(ended.wait(), 30)
    return ran


@asynccontextmanager
async def _client(app: Starlette, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    Afterwards(f"sqlite:///{directory}/tasks.db").install(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with living(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


def _attached(name: str) -> BackgroundTask:
    return BackgroundTask(work, name)


async def _handler(request: Request) -> Response:
    return JSONResponse({}, background=_attached("accepted"))


async def _file(request: Request) -> Response:
    return FileResponse(__file__, background=_attached("accepted"))


class _RaisesLate(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        await call_next(request)
        raise ZeroDivisionError


class _RaisesEarly(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        raise ZeroDivisionError


async def test_a_late_middleware_error_refuses_nothing(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/", _handler)], middleware=[Middleware(_RaisesLate)])
    async with _client(app, tmp_path) as client:
        assert (await client.get("/")).status_code == 500
        assert await _ran() == {"accepted"}


async def test_an_early_middleware_error_accepts_nothing(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/", _handler)], middleware=[Middleware(_RaisesEarly)])
    async with _client(app, tmp_path) as client:
        assert (await client.get("/")).status_code == 500
    assert not ran


async def test_a_range_too_far_refuses_nothing(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/", _file)])
    async with _client(app, tmp_path) as client:
        assert (await client.get("/", headers={"Range": "bytes=9999999-"})).status_code == 416
        assert await _ran() == {"accepted"}


class _Admits(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        if request.cookies.get("user") == "ada":
            return await call_next(request)
        return JSONResponse({}, 401)


async def test_strangers_get_no_kept_answer(tmp_path: Path) -> None:
    route = Route("/", _handler, methods=["POST"])
    app = Starlette(routes=[route], middleware=[Middleware(_Admits)])
    ada, key = {"Cookie": "user=ada"}, {"Idempotency-Key": "k"}
    async with _client(app, tmp_path) as client:
        first = await client.post("/", headers=ada | key)
        again = await client.post("/", headers=ada | key)
        stranger = await client.post("/", headers=key)
    assert first.headers["Task-Id"] == again.headers["Task-Id"]
    assert (stranger.status_code, stranger.headers.get("Task-Id")) == (401, None)


async def test_a_keyed_body_is_bounded(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/", _handler, methods=["POST"])])
    key = {"Idempotency-Key": "k"}
    async with _client(app, tmp_path) as client:
        assert (await client.post("/", content=bytes(2**20), headers=key)).status_code == 200
        assert (await client.post("/", content=bytes(2**20 + 1), headers=key)).status_code == 413


async def test_an_application_may_word_a_refusal() -> None:
    async def in_own_words(request: Request, error: Exception) -> Response:
        return JSONResponse({"own": True}, 503)

    app = Starlette(routes=[Route("/", _handler)], exception_handlers={Refused: in_own_words})
    afterwards = Afterwards("postgres://nobody@127.0.0.1:1/away")
    afterwards.install(app)
    async with living(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        assert (await client.get("http://x/")).json() == {"own": True}


@pytest.mark.parametrize("scope", ["request", "function"])
async def test_dependencies_end_after_tasks_begin(
    tmp_path: Path, scope: Literal["request", "function"]
) -> None:
    app = FastAPI()
    found: list[set[str]] = []

    async def dependency() -> AsyncIterator[None]:
        yield
        found.append(await _ran() if scope == "request" else {*ran})

    @app.get("/", dependencies=[Depends(dependency, scope=scope)])
    async def handler() -> Response:
        return JSONResponse({}, background=_attached("accepted"))

    async with _client(app, tmp_path) as client:
        await client.get("/")
        assert await _ran() == {"accepted"}
    assert found == [{"accepted"} if scope == "request" else set()]


async def test_additions_after_a_yield_are_lost(tmp_path: Path) -> None:
    app = FastAPI()

    async def dependency(background: BackgroundTasks) -> AsyncIterator[None]:
        background.add_task(work, "before")
        yield
        background.add_task(work, "after")

    @app.get("/", dependencies=[Depends(dependency)])
    async def handler() -> None: ...

    async with _client(app, tmp_path) as client:
        answer = await client.get("/")
        assert await _ran() == {"before"}
    assert ran == {"before"}
    assert len(answer.headers["Task-Id"].split(",")) == 1


async def test_own_background_drops_the_injected(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(background: BackgroundTasks) -> Response:
        background.add_task(work, "injected")
        return JSONResponse({}, background=_attached("own"))

    async with _client(app, tmp_path) as client:
        answer = await client.get("/")
        assert await _ran() == {"own"}
    assert ran == {"own"}
    assert len(answer.headers["Task-Id"].split(",")) == 1
