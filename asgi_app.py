"""The service: its handlers, its routes, and the one line that makes its tasks durable.

`uvicorn asgi_app:app` serves it; so does `python asgi_app.py`, on `PORT`.
"""

import gc
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute

import tasks
import tracing
import users
from afterwards import Afterwards, current_task_id, http, problems
from afterwards.errors import DatabaseUnavailable
from afterwards.http import checking
from afterwards.times import rfc3339
from afterwards.watchdog import UNWINDING_SECONDS, ending_within
from effects import images
from settings import (
    Settings,
    allowed_hosts,
    for_afterwards,
    for_operators,
    listed,
    read_or_exit,
    settings,
)
from web import answers, bodies, connections, door, logs
from web.headers import policy
from web.routing import Route

NAME, VERSION = "starlette-background-tasks", "0.2.0"

# Any page may show them; and alone, a browser shows them in a page of its own, with styles.
OF_PICTURES = {
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": policy(style="'unsafe-inline'"),
}

log = logging.getLogger("service")


async def index(request: Request) -> Response:
    routes = [
        f"{method} {route.path}" for route in request.app.routes for method in _methods(route)
    ]
    return JSONResponse({"name": NAME, "version": VERSION, "status": "ok", "routes": routes})


async def health(request: Request) -> Response:
    # From memory alone: what the heartbeat saw last, every two seconds. A check must not queue
    # behind those it is for.
    afterwards: Afterwards = request.app.state.afterwards
    is_up = afterwards.is_well()
    word = "ok" if is_up else "down"
    state = {"status": "ok" if is_up else "waits for the database", **afterwards.state()}
    body = {"status": word, "database": word, "worker": state, "tracing": tracing.status()}
    return JSONResponse(body, 200 if is_up else 503)


async def test(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.background_sleep_task)
    return PlainTextResponse("ok", background=background)


async def notify(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.send_notification)
    message = "Notification scheduled in background"
    return JSONResponse({"ok": True, "message": message}, background=background)


class Users(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        page = checking.query(request, bodies.Page)
        database = request.app.state.afterwards.database
        found = await users.page(database, limit=page.limit, after=page.after)
        return JSONResponse([_shown(user) for user in found])

    async def post(self, request: Request) -> Response:
        return await _add_user(request, is_announced=False)


async def add_user_with_notifications(request: Request) -> Response:
    return await _add_user(request, is_announced=True)


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
    return FileResponse(path, media_type=media_type, headers=OF_PICTURES)


async def sync_task(request: Request) -> Response:
    began = time.perf_counter()
    await tasks.work()
    duration = round(time.perf_counter() - began, 2)
    return JSONResponse({"status": "completed", "duration": duration})


async def async_task(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.work)
    body = {"task_id": request.state.task_id, "status": "processing"}
    return JSONResponse(body, 202, background=background)


async def action(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.log_action, "action")
    return JSONResponse({"status": "processing"}, 202, background=background)


async def complex_action(request: Request) -> Response:
    background = BackgroundTasks()
    background.add_task(tasks.log_action, "complex action")
    background.add_task(tasks.write_audit_record, "complex action")
    background.add_task(tasks.send_notification)
    body = {"status": "processing", "tasks": len(background.tasks)}
    return JSONResponse(body, 202, background=background)


async def process(request: Request) -> Response:
    item = (await bodies.read(request, bodies.Item)).model_dump()
    background = BackgroundTasks()
    background.add_task(tasks.process_item, item)
    return JSONResponse({"status": "accepted", "id": item["id"]}, 202, background=background)


async def _add_user(request: Request, *, is_announced: bool) -> Response:
    new = await bodies.read(request, bodies.NewUser)
    afterwards: Afterwards = request.app.state.afterwards
    adding = users.adding(afterwards.database, new.email, new.username)
    try:
        async with adding as (connection, user):
            # In the user's own transaction: there is no user without a welcome.
            welcome = (tasks.send_welcome_mail, user.email, user.username)
            await afterwards.enqueue(*welcome, within=connection)
            if is_announced:
                announcement = (tasks.announce_on_discord, user.username)
                await afterwards.enqueue(*announcement, within=connection)
    except users.Taken as taken:
        errors: list[problems.FieldError] = [
            {"pointer": f"#/{field}", "detail": "Another user has it."} for field in taken.fields
        ]
        detail = "There is such a user already; errors says in which fields."
        raise problems.Problem(409, detail, errors) from None
    return JSONResponse(_shown(user), 201)


def _shown(user: users.User) -> dict[str, Any]:
    return {**asdict(user), "created_at": rfc3339(user.created_at)}


def _methods(route: BaseRoute) -> list[str]:
    methods = getattr(route, "methods", None) or {"GET", "POST"}  # an HTTPEndpoint has none
    return sorted(methods - {"HEAD"})


ROUTES = [
    Route("/", index),
    Route("/health", health),
    Route("/test", test),
    Route("/api/notifications/notify", notify, methods=["POST"]),
    Route("/users/", Users),
    Route("/users/with-notifications/", add_user_with_notifications, methods=["POST"]),
    Route("/process-image/", process_image, methods=["POST"]),
    Route("/images/{job_id}", show_image),
    Route("/sync-task/", sync_task, methods=["POST"]),
    Route("/async-task/", async_task, methods=["POST"]),
    Route("/action", action, methods=["POST"]),
    Route("/complex-action", complex_action, methods=["POST"]),
    Route("/process", process, methods=["POST"]),
]


class ServiceTasks(Afterwards):
    """Has the users' table made, and ends the process where a task blocks the shutdown."""

    async def start(self) -> None:
        await super().start()
        with suppress(DatabaseUnavailable):  # then it is made when users are first asked for
            await users.make_table(self.database)

    async def stop(self, seconds: float | None = None) -> None:
        with ending_within(self.drain_seconds + UNWINDING_SECONDS):
            await super().stop(seconds)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    if (settings.dyno or settings.render) and settings.database_url.startswith("sqlite"):
        log.warning(
            "THE DISK HERE FORGETS: users and tasks are lost at each deploy and restart; "
            "set DATABASE_URL"
        )
    _quieten_garbage_collector()
    yield


def _quieten_garbage_collector() -> None:
    # It walks through all that was ever imported, again and again: a fifth of a request's time, and
    # most of the p99.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def create_app(settings: Settings) -> Starlette:
    """Make the service; its `state.afterwards` runs its tasks."""
    afterwards = ServiceTasks(**for_afterwards(settings), tracing=tracing)
    operators = http.Operators(**for_operators(settings))
    app = Starlette(
        routes=[*ROUTES, *http.routes(afterwards, operators, prefix="/tasks")],
        middleware=[Middleware(tracing.entry_spans)],
        exception_handlers={
            HTTPException: problems.answer,
            ClientDisconnect: answers.nobody,
            OSError: answers.no_descriptors,
            Exception: problems.answer_bug,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.afterwards, app.state.operators = afterwards, operators
    door.put_before(app, hosts=allowed_hosts(settings), origins=listed(settings.cors_origins))
    afterwards.install(app)
    return app


read_or_exit()
connections.guard()
logs.configure(
    settings.log_level,
    settings.log_format,
    current_task_id.get,
    tracing.trace_id,
    is_reported=settings.sw_agent_collector_backend_services is not None,
)
app = create_app(settings)
afterwards = app.state.afterwards


if __name__ == "__main__":
    # A request ends within seconds; the time that a platform grants after SIGTERM belongs to the
    # tasks.
    uvicorn.run(
        "asgi_app:app",
        port=settings.port,
        timeout_graceful_shutdown=5,
        reset_contextvars=True,
    )
