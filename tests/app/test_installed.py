"""What an application gets by `install`, and what it does not."""

import asyncio
import logging
import multiprocessing
import sqlite3
import threading
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from afterwards import Afterwards, Later, current_task_id, idempotency, task
from afterwards.errors import NotStarted, UnknownTask
from tests.lifespan import living

pytestmark = pytest.mark.anyio

AWAY = "postgres://127.0.0.1:1/none"

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def afterwards(tmp_path: Path) -> Afterwards:
    return Afterwards(f"sqlite:///{tmp_path}/tasks.db", drain_seconds=5)


@task("installed.note")
async def note(word: str) -> None:
    ran.append(word)


@task("installed.enqueues")
async def enqueues(owners: int) -> None: ...


async def in_memory() -> None:
    ran.append("in memory")


async def attaches(request: Request) -> Response:
    return PlainTextResponse("ok", 202, background=BackgroundTask(note, "attached"))


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def until(word: str) -> None:
    async with asyncio.timeout(10):
        while word not in ran:  # noqa: ASYNC110  # it runs in this loop
            await asyncio.sleep(0.01)


# --- what is not started, and what is not there ---


async def test_without_a_lifespan_nothing_is_accepted(afterwards: Afterwards) -> None:
    app = Starlette(routes=[Route("/", attaches)])
    afterwards.install(app)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        with pytest.raises(NotStarted, match="lifespan"):
            await client.get("/")
    assert ran == []


async def test_without_a_lifespan_memory_still_works(afterwards: Afterwards) -> None:
    async def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(in_memory))

    app = Starlette(routes=[Route("/", handler)])
    afterwards.install(app)
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200
    assert ran == ["in memory"]


async def test_an_absent_database_is_503_everywhere() -> None:
    class Answering(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            if request.url.path == "/middleware":
                return await attaches(request)
            return await call_next(request)

    routes = [Route("/", attaches), Mount("/inner", Starlette(routes=[Route("/x", attaches)]))]
    app = Starlette(routes=routes, middleware=[Middleware(Answering)])
    Afterwards(AWAY).install(app)
    async with living(app), client_of(app) as client:
        for path in ("/", "/inner/x", "/middleware"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path
            assert "task-id" not in answer.headers


async def test_a_missing_install_is_warned_of(
    afterwards: Afterwards, caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette(routes=[Route("/", attaches)])
    async with client_of(app) as client:
        for _ in range(2):
            await client.get("/")
    assert [record.levelno for record in caplog.records if "installed.note" in record.message] == [
        logging.WARNING
    ]
    assert ran == ["attached"] * 2  # as Starlette has it


async def test_an_uninstalled_application_is_untouched(afterwards: Afterwards) -> None:
    async def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(in_memory))

    async with client_of(Starlette(routes=[Route("/", handler)])) as client:
        assert "task-id" not in (await client.get("/")).headers
    assert ran == ["in memory"]


async def test_install_takes_each_application_once(afterwards: Afterwards) -> None:
    app = Starlette()
    afterwards.install(app)
    with pytest.raises(RuntimeError, match="installed"):
        afterwards.install(app)
    with pytest.raises(TypeError, match="Starlette or FastAPI"):
        afterwards.install(object())  # type: ignore[arg-type]


async def test_install_after_the_start_is_refused(afterwards: Afterwards) -> None:
    app = Starlette(routes=[Route("/", attaches)])
    async with client_of(app) as client:
        await client.get("/")
    with pytest.raises(RuntimeError, match="before the application starts"):
        afterwards.install(app)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "mysql://host/name"},
        {"url": None},
        {"url": "postgres://user:password@host:port/name"},
        {"broker": 5},
        {"table_prefix": None},
        {"broker": "kafka://host"},
        {"table_prefix": "Robert'); DROP"},
        {"max_running": 0},
        {"threads": 1.5},
        {"timeout": 0},
        {"max_queued": -1},
        {"keep_days": float("nan")},
        {"drain_seconds": -1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_argument_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        Afterwards(**wrong)  # type: ignore[arg-type]


# --- the lifespan ---


async def test_the_applications_lifespan_surrounds_ours(afterwards: Afterwards) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ran.append(f"up {afterwards.is_started}")
        yield
        ran.append(f"down {afterwards.is_started}")

    app = Starlette(routes=[Route("/", attaches)], lifespan=lifespan)
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        assert afterwards.is_started
        await client.get("/")
    assert sorted(ran) == ["attached", "down False", "up False"]


async def test_an_application_may_live_twice(afterwards: Afterwards) -> None:
    app = Starlette(routes=[Route("/", attaches)])
    afterwards.install(app)
    for _ in range(2):
        async with living(app), client_of(app) as client:
            assert "task-id" in (await client.get("/")).headers
    assert ran == ["attached"] * 2


@pytest.mark.parametrize("fails", [False, True])
async def test_lifespans_may_enqueue_leaving_nothing_open(
    afterwards: Afterwards, fails: bool
) -> None:
    ids = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ids.append(await afterwards.enqueue(note, "before the start"))
        if fails:
            raise ZeroDivisionError
        yield
        ids.append(await afterwards.enqueue(note, "after the end"))

    app = Starlette(lifespan=lifespan)
    afterwards.install(app)
    with pytest.raises(RuntimeError) if fails else nullcontext():
        async with living(app):
            await until("before the start")
    async with asyncio.timeout(10):
        while any(each.name.startswith("sqlite-writer") for each in threading.enumerate()):  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.01)
    stored = [await afterwards.enqueue(note, "later"), *ids]
    assert all([await afterwards.store.get(id) for id in stored])
    await afterwards.stop()


async def test_a_websocket_may_enqueue(afterwards: Afterwards) -> None:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.scope["afterwards"].enqueue(note, "socket"))
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", socket)])
    afterwards.install(app)

    asked: list[Message] = [{"type": "websocket.connect"}]
    told: list[Message] = []

    async def receive() -> Message:
        return asked.pop()

    async def send(message: Message) -> None:
        told.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    async with living(app):
        await app(scope, receive, send)
        assert told[1]["text"].startswith("task-")
        await until("socket")


# --- answers ---


async def test_a_broken_stream_keeps_accepted_tasks(afterwards: Afterwards) -> None:
    async def handler(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"piece"
            raise ZeroDivisionError

        return StreamingResponse(pieces(), background=BackgroundTask(note, "broken off"))

    app = Starlette(routes=[Route("/", handler)])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        await client.get("/")
        await until("broken off")


async def test_a_reused_response_makes_new_tasks(afterwards: Afterwards) -> None:
    kept = PlainTextResponse("ok", 202, background=BackgroundTask(note, "kept"))

    async def handler(request: Request) -> Response:
        return kept

    app = Starlette(routes=[Route("/", handler)])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
        ids = [id for answer in answers for id in answer.headers.get_list("task-id")]
    assert len({*ids}) == len(ids) == 20
    assert ran == ["kept"] * 20


async def test_a_refusal_bears_middlewares_headers(tmp_path: Path) -> None:
    cors = Middleware(CORSMiddleware, allow_origins=["*"])
    app = Starlette(routes=[Route("/", attaches, methods=["POST"])], middleware=[cors])
    Afterwards(f"sqlite:///{tmp_path}/tasks.db").install(app)
    headers = {"origin": "http://elsewhere", "idempotency-key": "k"}
    async with living(app), client_of(app) as client:
        await client.post("/", content="one", headers=headers)
        reused = await client.post("/", content="another", headers=headers)
    assert (reused.status_code, reused.headers["access-control-allow-origin"]) == (422, "*")


@pytest.mark.parametrize("header", ["authorization", "cookie", "x-api-key"])
async def test_clients_do_not_share_a_key(afterwards: Afterwards, header: str) -> None:
    app = Starlette(routes=[Route("/", attaches, methods=["POST"])])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        ids = []
        for name in ("ada", "bob", "ada"):
            headers = {"idempotency-key": "k", header: name}
            ids.append((await client.post("/", headers=headers)).headers["task-id"])
    assert ids[0] == ids[2] != ids[1]


async def test_another_query_is_another_request(afterwards: Afterwards) -> None:
    app = Starlette(routes=[Route("/", attaches, methods=["POST"])])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        headers = {"idempotency-key": "k"}
        await client.post("/", params={"email": "ada"}, headers=headers)
        bob = await client.post("/", params={"email": "bob"}, headers=headers)
        again = await client.post("/", params={"email": "ada"}, headers=headers)
    assert (bob.status_code, again.status_code) == (422, 202)
    assert ran == ["attached"]


async def test_a_broken_body_uses_no_key(afterwards: Afterwards) -> None:
    app = Starlette(routes=[Route("/", attaches, methods=["POST"])])
    afterwards.install(app)
    asked: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"the beginning", "more_body": True},
    ]
    scope = {
        **{"type": "http", "method": "POST", "path": "/", "query_string": b"", "root_path": ""},
        "headers": [(b"idempotency-key", b"k")],
    }

    async def receive() -> Message:
        return asked.pop()

    async def send(message: Message) -> None: ...

    async with living(app), client_of(app) as client:
        await app(scope, receive, send)
        assert ran == []
        headers = {"idempotency-key": "k"}
        assert (await client.post("/", content="all of it", headers=headers)).status_code == 202


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_handlers_own_location_stays_alone(afterwards: Afterwards, is_kept: bool) -> None:
    def make() -> Response:
        background = BackgroundTask(note, "located")
        return PlainTextResponse("ok", 202, {"Location": "/orders/1"}, background=background)

    kept = make()

    async def handler(request: Request) -> Response:
        return kept if is_kept else make()

    app = Starlette(routes=[Route("/", handler), Mount("/tasks", afterwards.http())])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        for _ in range(2):
            answer = await client.get("/")
            assert answer.headers.get_list("location") == ["/orders/1"]
            assert len(answer.headers.get_list("task-id")) == 1


@pytest.mark.parametrize("path", [None, "/elsewhere"])
async def test_lost_answers_tell_the_tasks_place(
    afterwards: Afterwards, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loses(*args: object) -> None: ...

    async def handler(request: Request) -> Response:
        await afterwards.enqueue(note, "its answer is lost")
        return PlainTextResponse("ok")

    monkeypatch.setattr(idempotency, "remember", loses)
    monkeypatch.setattr(idempotency, "LOST_SECONDS", -1)
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    if path:
        app.mount(path, afterwards.http())
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        first, second = [await client.post("/", headers={"idempotency-key": "k"}) for _ in "ab"]
    id = first.headers["task-id"]
    assert (second.status_code, second.headers["task-id"]) == (202, id)
    assert second.headers.get("location") == (path and f"{path}/{id}")


@pytest.mark.parametrize("commits", [False, True])
async def test_a_middlewares_timeout_stays_its_own(
    afterwards: Afterwards, commits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object) -> None:
        await asyncio.Event().wait()

    async def handler(request: Request) -> Response:
        if not commits:
            await never()
        return await attaches(request)

    class Timeout:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                async with asyncio.timeout(0.1):
                    await self.app(scope, receive, send)
            except TimeoutError:
                await PlainTextResponse("too slow", 504)(scope, receive, send)

    app = Starlette(routes=[Route("/", handler)], middleware=[Middleware(Timeout)])
    afterwards.install(app)
    monkeypatch.setattr(Afterwards, "accept", never)
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 504


# --- enqueue ---


async def test_enqueue_works_in_a_script(afterwards: Afterwards) -> None:
    id = await afterwards.enqueue(note, "from a script")
    await afterwards.stop()
    assert ran == []
    await afterwards.start()
    await until("from a script")
    assert (await afterwards.store.get(id)) is not None
    await afterwards.stop()


def test_enqueue_sync_works_in_a_script(afterwards: Afterwards) -> None:
    assert afterwards.enqueue_sync(note, "from a plain script").startswith("task-")


def test_threads_of_a_script_take_turns(afterwards: Afterwards) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [*pool.map(lambda word: afterwards.enqueue_sync(note, word), "abcdefghijklmnop")]
    with closing(sqlite3.connect(afterwards.url.removeprefix("sqlite:///"))) as database:
        stored = database.execute("SELECT id FROM afterwards_tasks").fetchall()
    assert sorted(ids) == sorted(id for (id,) in stored)


async def test_a_scripts_threads_share_its_loop(afterwards: Afterwards) -> None:
    first = await afterwards.enqueue(note, "by the script")
    second = await asyncio.to_thread(afterwards.enqueue_sync, note, "by its thread")
    assert all([await afterwards.store.get(id) for id in (first, second)])
    await afterwards.stop()


async def test_two_loops_do_not_share_one(afterwards: Afterwards) -> None:
    await afterwards.enqueue(note, "here")
    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, afterwards.enqueue(note, "there"))
    await afterwards.stop()


async def test_a_forked_process_is_refused(afterwards: Afterwards) -> None:
    told, tell = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        try:
            tell.send(afterwards.enqueue_sync(note, "from a child"))
        except RuntimeError as error:
            tell.send(str(error))

    await afterwards.start()
    with warnings.catch_warnings():  # since 3.12 Python itself warns of a fork among threads
        warnings.simplefilter("ignore", DeprecationWarning)
        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
    await asyncio.to_thread(forked.join, 20)
    assert "spawn" in told.recv()
    await afterwards.stop()


async def test_a_coroutine_is_told_to_await(afterwards: Afterwards) -> None:
    with pytest.raises(RuntimeError, match="await enqueue"):
        afterwards.enqueue_sync(note, "not started")


async def test_a_parameter_may_be_called_function(afterwards: Afterwards) -> None:
    @task("installed.names")
    async def names(function: str) -> None: ...

    assert await afterwards.enqueue(names, function="b")
    assert Later(datetime.now(UTC), names, function="b").kwargs == {"function": "b"}
    await afterwards.stop()


async def test_enqueue_sync_works_in_threads(afterwards: Afterwards) -> None:
    def plain(request: Request) -> Response:
        return PlainTextResponse(afterwards.enqueue_sync(note, "from a thread"))

    app = Starlette(routes=[Route("/", plain)])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        answer = await client.get("/")
        assert answer.headers["task-id"] == answer.text
        await until("from a thread")
        with pytest.raises(RuntimeError, match="await enqueue"):
            afterwards.enqueue_sync(note, "from the loop")


async def test_a_task_may_enqueue_another(afterwards: Afterwards) -> None:
    @task("installed.parent")
    async def parent() -> None:
        await afterwards.enqueue(note, f"child of {current_task_id.get()}")

    await afterwards.start()
    id = await afterwards.enqueue(parent)
    await until(f"child of {id}")
    await afterwards.stop()


async def test_what_is_enqueued_for_later_waits(afterwards: Afterwards) -> None:
    await afterwards.start()
    id = await afterwards.enqueue(note, "late", run_at=datetime.now(UTC) + timedelta(hours=1))
    row = await afterwards.store.get(id)
    assert row is not None
    assert row.state == "queued"
    with pytest.raises(ValueError, match="time zone"):
        await afterwards.enqueue(note, "late", run_at=datetime(2030, 1, 1))
    await afterwards.stop()
    assert ran == []


async def test_only_task_functions_can_be_enqueued(afterwards: Afterwards) -> None:
    with pytest.raises(UnknownTask, match="in_memory is not under @task"):
        await afterwards.enqueue(in_memory)


@pytest.mark.parametrize("is_session", [False, True])
async def test_within_commits_both_or_neither(database_url: str, is_session: bool) -> None:
    afterwards = Afterwards(database_url, drain_seconds=5)
    await afterwards.start()
    engine = create_async_engine(
        database_url.replace("sqlite:", "sqlite+aiosqlite:").replace(
            "postgres:", "postgresql+asyncpg:"
        )
    )

    def begin() -> object:
        return AsyncSession(engine) if is_session else engine.connect()

    async with begin() as within:  # type: ignore[attr-defined]
        lost = await afterwards.enqueue(note, "lost", within=within)
        await within.rollback()
    async with begin() as within:  # type: ignore[attr-defined]
        kept = await afterwards.enqueue(note, "kept", within=within)
        assert await afterwards.store.get(kept) is None
        await within.commit()
    await until("kept")
    assert await afterwards.store.get(lost) is None
    await engine.dispose()
    await afterwards.stop()
    assert ran == ["kept"]


async def test_one_of_two_applications_does_not_stop_the_other(afterwards: Afterwards) -> None:
    first, second = [Starlette(routes=[Route("/", attaches)]) for _ in "ab"]
    afterwards.install(first)
    afterwards.install(second)
    async with living(first), client_of(first) as client:
        with pytest.raises(RuntimeError, match="make one for each"):
            async with living(second):
                pass
        assert (await client.get("/")).status_code == 202
        await until("attached")


async def test_two_live_in_one_process(tmp_path: Path) -> None:
    first, second = [Afterwards(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    inner, app = Starlette(routes=[Route("/", attaches)]), Starlette(routes=[Route("/", attaches)])
    app.router.routes.append(Mount("/inner", inner))
    first.install(app)
    second.install(inner)
    async with living(app), living(inner), client_of(app) as client:
        outer_id = (await client.get("/")).headers["task-id"]
        inner_id = (await client.get("/inner/")).headers["task-id"]
        assert [await each.store.get(inner_id) is None for each in (first, second)] == [True, False]
        assert [await each.store.get(outer_id) is None for each in (first, second)] == [False, True]


def test_threads_are_not_left_behind() -> None:
    assert [each.name for each in threading.enumerate() if each.name == "sqlite-writer"] == []


# --- a handler's own transaction ---


def url_for_alchemy(url: str) -> str:
    return url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgres:", "postgresql+asyncpg:")


@pytest.mark.parametrize("to", ["the beginning", "a savepoint", "a savepoint before"])
@pytest.mark.parametrize("key", ["", "k"])
async def test_rolled_back_tasks_are_not_announced(database_url: str, to: str, key: str) -> None:
    afterwards = Afterwards(database_url, drain_seconds=5)
    engine = create_async_engine(url_for_alchemy(database_url))

    async def handler(request: Request) -> Response:
        async with AsyncSession(engine) as session:
            await session.connection()
            if to == "the beginning":
                await afterwards.enqueue(note, "lost", within=session)
                await session.rollback()
            elif to == "a savepoint":
                await afterwards.enqueue(note, "kept", within=session)
                savepoint = await session.begin_nested()
                await afterwards.enqueue(note, "lost", within=session)
                await savepoint.rollback()
            else:
                savepoint = await session.begin_nested()
                await afterwards.enqueue(note, "lost", within=session)
                await savepoint.rollback()
                await afterwards.enqueue(note, "kept", within=session)
            await session.commit()
        return PlainTextResponse("ok", background=BackgroundTask(note, "attached"))

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    afterwards.install(app)
    async with living(app), client_of(app) as client:
        headers = {"idempotency-key": key} if key else {}
        answers = [await client.post("/", headers=headers) for _ in range(2)]
        await until("attached")
        for answer in answers:
            ids = answer.headers["task-id"].split(", ")
            assert len(ids) == (1 if to == "the beginning" else 2)
            assert all([await afterwards.store.get(id) for id in ids])
        assert (answers[0].headers["task-id"] == answers[1].headers["task-id"]) is bool(key)
    await engine.dispose()
    assert "lost" not in ran


async def test_open_transactions_hold_up_no_answer(afterwards: Afterwards) -> None:
    engine = create_async_engine(url_for_alchemy(afterwards.url))
    let_it_commit = asyncio.Event()

    class Committing:  # after the answer, as FastAPI's dependencies do since 0.118
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async with AsyncSession(engine) as scope["session"]:
                await self.app(scope, receive, send)
                if scope["type"] == "http":
                    await let_it_commit.wait()
                    await scope["session"].commit()

    async def handler(request: Request) -> Response:
        await afterwards.enqueue(note, "within", within=request.scope["session"])
        return PlainTextResponse("ok")

    app = Starlette(
        routes=[Route("/", handler, methods=["POST"])], middleware=[Middleware(Committing)]
    )
    afterwards.install(app)
    body: list[Message] = [{"type": "http.request"}]
    scope = {
        **{"type": "http", "method": "POST", "path": "/", "query_string": b"", "root_path": ""},
        "headers": [(b"idempotency-key", b"k" * 32), (b"host", b"test")],
    }
    answer: asyncio.Queue[Message] = asyncio.Queue()

    async def receive() -> Message:
        return body.pop()

    async with living(app), client_of(app) as client:
        asking = asyncio.create_task(app(scope, receive, answer.put))
        async with asyncio.timeout(3):  # a lock is waited for longer
            start = await answer.get()
        assert start["status"] == 200
        let_it_commit.set()
        await asking
        again = await client.post("/", headers={"idempotency-key": "k" * 32})
        assert (b"task-id", again.headers["task-id"].encode()) in start["headers"]
        assert (again.status_code, again.text) == (200, "ok")
        await until("within")
    await engine.dispose()
