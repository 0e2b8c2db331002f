"""The front door: the route table, the lifespan, the wiring.

`uvicorn asgi_app:app` serves it; so does `python asgi_app.py`, on `PORT`.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import tasks
import tracing
import users
from afterwards import problems, registry
from afterwards.attempt import current_task_id
from afterwards.background import after_answer, store
from afterwards.brokers import Broker
from afterwards.brokers.publisher import HandOffWorker
from afterwards.errors import CutOff, KeyIsUnderWay, KeyReused, Overloaded
from afterwards.http import api as task_routes
from afterwards.http import checking
from afterwards.slots import LocalEngine
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown
from afterwards.store.tasks import Store
from afterwards.worker import Worker
from effects import images
from settings import exit_with, settings
from web import bodies, connections, logs

NAME, VERSION = "starlette-background-tasks", "0.1.0"

log = logging.getLogger("service")

Handler = Callable[[Request], Awaitable[Response]]


async def index(request: Request) -> Response:
    routes = [f"{method} {path}" for path, handlers in ROUTES.items() for method in handlers]
    return JSONResponse({"name": NAME, "version": VERSION, "status": "ok", "routes": routes})


async def health(request: Request) -> Response:
    # From memory alone: what the heartbeat saw last, every two seconds. A check must not queue
    # behind those it is for.
    worker = request.app.state.worker
    is_up = worker.is_well()
    word = "ok" if is_up else "down"
    state = {"status": "ok" if is_up else "waits for the database", **worker.state()}
    body = {"status": word, "database": word, "worker": state, "tracing": tracing.status()}
    return JSONResponse(body, 200 if is_up else 503)


async def test(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.background_sleep_task)
    return PlainTextResponse("ok", background=background)


async def notify(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.send_notification)
    return JSONResponse(
        {"ok": True, "message": "Notification scheduled in background"}, background=background
    )


async def add_user(request: Request) -> Response:
    return await _add_user(request, is_announced=False)


async def add_user_with_notifications(request: Request) -> Response:
    return await _add_user(request, is_announced=True)


async def list_users(request: Request) -> Response:
    page = checking.query(request, bodies.Page)
    found = await users.page(request.app.state.database, limit=page.limit, after=page.after)
    return JSONResponse([_shown(user) for user in found])


async def process_image(request: Request) -> Response:
    order = await bodies.read(request, bodies.ImageOrder)
    job_id = request.state.task_id
    background = BackgroundTasks()
    background.add_task(tasks.process_image, job_id, str(order.image_url), order.operations)
    return JSONResponse({"job_id": job_id, "status": "processing"}, 202, background=background)


async def show_image(request: Request) -> Response:
    found = images.find(settings.images_dir, request.path_params["job_id"])
    if found is None:
        raise problems.Problem(
            404, "There is no image under this id: it is not ready yet, or its task failed."
        )
    path, media_type = found
    return FileResponse(path, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})


async def sync_task(request: Request) -> Response:
    began = time.perf_counter()
    await tasks.work()
    return JSONResponse({"status": "completed", "duration": round(time.perf_counter() - began, 2)})


async def async_task(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.work)
    return JSONResponse(
        {"task_id": request.state.task_id, "status": "processing"}, 202, background=background
    )


async def action(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.log_action, "action")
    return JSONResponse({"status": "processing"}, 202, background=background)


async def complex_action(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.log_action, "complex action")
    background.add_task(tasks.write_audit_record, "complex action")
    background.add_task(tasks.send_notification)
    return JSONResponse(
        {"status": "processing", "tasks": len(background.tasks)}, 202, background=background
    )


async def process(request: Request) -> Response:
    item = (await bodies.read(request, bodies.Item)).model_dump()
    background = BackgroundTasks()
    background.add_task(tasks.process_item, item)
    return JSONResponse({"status": "accepted", "id": item["id"]}, 202, background=background)


async def _add_user(request: Request, *, is_announced: bool) -> Response:
    new = await bodies.read(request, bodies.NewUser)
    background = BackgroundTasks()
    try:
        async with users.adding(request.app.state.database, new.email, new.username) as (
            connection,
            user,
        ):
            background.add_task(tasks.send_welcome_mail, user.email, user.username)
            if is_announced:
                background.add_task(tasks.announce_on_discord, user.username)
            background = await store(request, connection, background)
    except users.Taken as taken:
        errors: list[problems.FieldError] = [
            {"pointer": f"#/{field}", "detail": "Another user has it."} for field in taken.fields
        ]
        raise problems.Problem(
            409, "There is such a user already; errors says in which fields.", errors
        ) from None
    return JSONResponse(_shown(user), 201, background=background)


def _shown(user: users.User) -> dict[str, Any]:
    return {**asdict(user), "created_at": _rfc3339(user.created_at)}


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


ROUTES = {
    "/": {"GET": index},
    "/health": {"GET": health},
    "/test": {"GET": test},
    "/api/notifications/notify": {"POST": notify},
    "/users/": {"GET": list_users, "POST": add_user},
    "/users/with-notifications/": {"POST": add_user_with_notifications},
    "/process-image/": {"POST": process_image},
    "/images/{job_id}": {"GET": show_image},
    "/sync-task/": {"POST": sync_task},
    "/async-task/": {"POST": async_task},
    "/action": {"POST": action},
    "/complex-action": {"POST": complex_action},
    "/process": {"POST": process},
    "/tasks": {"GET": task_routes.index},
    "/tasks/{id}": {"GET": task_routes.show, "DELETE": task_routes.cancel},
    "/tasks/{id}/arguments": {"GET": task_routes.arguments},
    "/tasks/{id}/retry": {"POST": task_routes.retry},
}

# The paths whose bodies may have more bytes than `bodies.MAX_BODY`, or only fewer. What reads,
# checks and stores a body runs on the event loop, and there a mebibyte of fields takes a second.
MAX_BODIES: dict[str, int] = {}


def _routes() -> list[Route]:
    """Make the routes: each path answers with and without its trailing slash, under one name in the traces."""
    routes = []
    for path, handlers in ROUTES.items():
        endpoint = bodies.bounded(
            after_answer(_by_method(handlers), _carrier, bodies.whole),
            MAX_BODIES.get(path, bodies.MAX_BODY),
        )
        for spelling in {path, path.rstrip("/") or "/", path.rstrip("/") + "/"}:
            route = Route(spelling, endpoint, methods=list(handlers))
            route.path = path
            routes.append(route)
    return routes


def _carrier(request: Request) -> str:
    return tracing.carrier(request.scope)


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    """Choose by the request's method, so that a path is one route and its 405 can name all its methods."""

    async def endpoint(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _broker() -> Broker | None:
    """Give the broker that tasks are handed to; with none they run in this process."""
    if settings.celery_broker_url is None:
        return None
    try:
        from afterwards.brokers import (
            celery,
        )  # here, because a service without a broker runs without the package
    except ModuleNotFoundError:
        exit_with("CELERY_BROKER_URL: is set, takes `pip install -r requirements-celery.txt`")
    app = celery.make_app(
        settings.celery_broker_url, longest=registry.longest(settings.request_timeout)
    )
    return celery.CeleryBroker(app, settings.celery_broker_url, tracing.publication)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    tracing.start(has_broker=broker is not None)
    if (settings.dyno or settings.render) and settings.database_url.startswith("sqlite"):
        log.warning(
            "THE DISK HERE FORGETS: users and tasks are lost at each deploy and restart; set DATABASE_URL"
        )
    app.state.admin_token = settings.admin_token
    app.state.database = database = Database(settings.database_url)
    app.state.store = Store(database)
    app.state.engine = LocalEngine(
        max_running=settings.max_running,
        threads=settings.task_threads,
        timeout=settings.request_timeout,
        surrounding=tracing.attempt,
    )
    limits: dict[str, Any] = {"max_queued": settings.max_queued, "keep_days": settings.keep_days}
    app.state.worker = worker = (
        HandOffWorker(app.state.store, app.state.engine, broker, **limits)
        if broker
        else Worker(app.state.store, app.state.engine, **limits)
    )
    try:
        await worker.begin()
        _quieten_garbage_collector()
        yield
    finally:
        await worker.drain(settings.drain_seconds)
        await asyncio.gather(database.close(), tracing.stop())


def _quieten_garbage_collector() -> None:
    # It walks through all that was ever imported, again and again: a fifth of a request's time, and
    # most of the p99.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


broker = _broker()

connections.guard()

logs.configure(
    settings.log_level, settings.log_format, task_id=current_task_id.get, trace_id=tracing.trace_id
)

app = Starlette(
    routes=_routes(),
    middleware=[Middleware(tracing.entry_spans)],
    exception_handlers={
        HTTPException: problems.answer,
        DatabaseUnavailable: problems.answer_unavailable,
        OutcomeUnknown: problems.answer_unknown,
        Overloaded: problems.answer_overloaded,
        KeyReused: problems.answer_wrong_key,
        KeyIsUnderWay: problems.answer_key_under_way,
        CutOff: problems.answer_cut_off,
        ClientDisconnect: problems.answer_nobody,
        OSError: problems.answer_no_descriptors,
        Exception: problems.answer_bug,
    },
    lifespan=lifespan,
)
app.router.redirect_slashes = False


if __name__ == "__main__":
    # A request ends within seconds; the time that a platform grants after SIGTERM belongs to the
    # tasks.
    uvicorn.run(
        "asgi_app:app", port=settings.port, timeout_graceful_shutdown=5, reset_contextvars=True
    )
