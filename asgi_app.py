"""The service: its handlers, its routes, and the one line that makes its tasks durable.

`uvicorn asgi_app:app` serves it; so does `python asgi_app.py`, on `PORT`.
"""

import gc
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

import tasks
import tracing
import users
from afterwards import Afterwards, current_task_id, http, problems
from afterwards.errors import DatabaseUnavailable
from afterwards.watchdog import UNWINDING_SECONDS, ending_within
from effects import images
from settings import (
    Settings,
    WrongSetting,
    allowed_hosts,
    exit_with,
    for_afterwards,
    for_operators,
    listed,
    read_or_exit,
    settings,
)
from web import accounts, answers, bodies, connections, door, logs, pages, proxies
from web.accept import prefers_html
from web.authentication import Authentication
from web.headers import policy
from web.openapi import operations_of
from web.rates import Rates
from web.routing import Route

if TYPE_CHECKING:
    from web.tokens import Tokens

NAME, VERSION = "starlette-background-tasks", "0.2.0"

# Any page may show them; and alone, a browser shows them in a page of its own, with styles.
OF_PICTURES = {
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": policy(style="'unsafe-inline'"),
}

log = logging.getLogger("service")


async def index(request: Request) -> Response:
    if prefers_html(request):
        return pages.index(request, VERSION)
    routes = [*operations_of(request.app.routes)]
    body = {"name": NAME, "version": VERSION, "status": "ok", "routes": routes}
    return JSONResponse(body, headers={"Vary": "Accept"})


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


async def process_image(request: Request) -> Response:
    order = await bodies.read(request, bodies.ImageOrder)
    job_id = request.state.task_id
    background = BackgroundTasks()
    url, owner = str(order.image_url), accounts.owner(request)
    background.add_task(tasks.process_image, job_id, url, order.operations, *owner)
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
    background.add_task(tasks.process_item, item, *accounts.owner(request))
    return JSONResponse({"status": "accepted", "id": item["id"]}, 202, background=background)


# What is not public needs a user where JWT_SECRET is set.
ROUTES = [
    Route("/", index, public=["GET"]),
    Route("/docs", pages.docs, public=["GET"]),
    Route("/redoc", pages.redoc, public=["GET"]),
    Route("/openapi.json", pages.openapi(NAME, VERSION), public=["GET"]),
    Route("/static/{name}", pages.static, public=["GET"]),
    Route("/health", health, public=["GET"]),
    Route("/test", test, get_enqueues=True),
    Route("/api/notifications/notify", notify, methods=["POST"]),
    Route("/token", accounts.give_token, methods=["POST"], public=["POST"]),
    # Anybody may become a user.
    Route("/users/", accounts.Users, public=["POST"]),
    Route(
        "/users/with-notifications/",
        accounts.add_user_with_notifications,
        methods=["POST"],
        public=["POST"],
    ),
    Route("/users/{id}", accounts.erase_user, methods=["DELETE"]),
    Route("/process-image/", process_image, methods=["POST"]),
    # Its id is the secret, as a task's is: a browser shows it without a token.
    Route("/images/{job_id}", show_image, public=["GET"]),
    Route("/sync-task/", sync_task, methods=["POST"]),
    Route("/async-task/", async_task, methods=["POST"]),
    Route("/action", action, methods=["POST"]),
    Route("/complex-action", complex_action, methods=["POST"]),
    Route("/process", process, methods=["POST"]),
]


class ServiceTasks(Afterwards):
    """Has the users' table made, and ends the process where a task blocks the shutdown."""

    rates: Rates | None = None  # what counts elsewhere lives as long as the tasks do

    async def start(self) -> None:
        await super().start()
        if self.rates:
            await self.rates.open()
        with suppress(DatabaseUnavailable):  # then it is made when users are first asked for
            await users.make_table(self.database)

    async def stop(self, seconds: float | None = None) -> None:
        with ending_within(self.drain_seconds + UNWINDING_SECONDS):
            await super().stop(seconds)
        if self.rates:
            await self.rates.close()


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
    attachments = images.Kept(settings.images_dir)
    rates = Rates(settings)
    afterwards = ServiceTasks(
        **for_afterwards(settings), admit=rates.admit, tracing=tracing, attachments=attachments
    )
    operators, tokens = http.Operators(**for_operators(settings)), _tokens(settings)
    asking = [Middleware(Authentication, tokens=tokens)] if tokens else []
    app = Starlette(
        routes=[*ROUTES, *http.routes(afterwards, operators, prefix="/tasks")],
        middleware=[
            *proxies.middleware(settings),
            Middleware(tracing.entry_spans),
            *rates.middleware(),
            *asking,
        ],
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
    app.state.rates = afterwards.rates = rates
    app.state.tokens = tokens
    door.put_before(app, hosts=allowed_hosts(settings), origins=listed(settings.cors_origins))
    afterwards.install(app)
    return app


def _tokens(settings: Settings) -> "Tokens | None":
    if settings.jwt_secret is None:
        return None
    from web.tokens import Tokens  # brings what takes 9 MB, and a third of a second at the start

    return Tokens(settings.jwt_secret, settings.jwt_secret_previous, settings.jwt_seconds)


read_or_exit()
connections.guard()
logs.configure(
    settings.log_level,
    settings.log_format,
    current_task_id.get,
    tracing.trace_id,
    is_reported=settings.sw_agent_collector_backend_services is not None,
)
try:
    app = create_app(settings)
except WrongSetting as complaint:
    exit_with(complaint)
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
