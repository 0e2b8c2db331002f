"""How an application comes to know of an `Afterwards`: its responses, its lifespan, its errors.

A response's background is seen where the response is called, because every way of answering passes
there: routes of any kind, sub-applications, exception handlers, middlewares, plain ASGI endpoints.
So `__call__` of Starlette's response classes is wrapped, once in a process, and acts only below an
application that installed.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards import idempotency, problems, server
from afterwards.background import task_names
from afterwards.errors import CutOff, Refused
from afterwards.problems import Problem
from afterwards.request_bodies import announced, counted, in_time, too_large
from afterwards.request_tasks import RequestTasks, Started

if TYPE_CHECKING:
    from afterwards.app import Afterwards

log = logging.getLogger("tasks")

OWNER, REQUEST = "afterwards", "afterwards.request"  # the keys of a scope

Call = Callable[[Any, Scope, Receive, Send], Awaitable[None]]


def install(app: Starlette, owner: "Afterwards") -> None:
    """Have the application's responses store their background tasks with `owner`.

    Raises TypeError for what is no Starlette application, RuntimeError for one that has started
    or has installed before.
    """
    if not isinstance(app, Starlette):
        raise TypeError(f"install takes a Starlette or FastAPI application, not {app!r}")
    if owner_of(app) is not None:
        raise RuntimeError("this application has installed an Afterwards already")
    if app.middleware_stack is not None:
        raise RuntimeError("install before the application starts: its middleware is built")
    watch_responses()
    app.exception_handlers.setdefault(Refused, problems.answer)
    build = app.build_middleware_stack

    def build_with_entry() -> ASGIApp:
        user = app.user_middleware
        app.user_middleware = [*user, Middleware(Innermost)]
        try:
            return Entry(build(), owner, app)
        finally:
            app.user_middleware = user

    build_with_entry.owner = owner  # type: ignore[attr-defined]  # a mark
    app.build_middleware_stack = build_with_entry  # type: ignore[method-assign]


def owner_of(app: object) -> "Afterwards | None":
    """Return what this application has installed, if it is one and has."""
    return getattr(getattr(app, "build_middleware_stack", None), "owner", None)


class Entry:
    """The outermost application: it says below whose tasks these are, and runs their owner."""

    def __init__(self, app: ASGIApp, owner: "Afterwards", installed: Starlette) -> None:
        self.app = app
        self.owner = owner
        owner.found(installed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        around: Scope = {}  # what is mounted in another application shares its scope
        if OWNER in scope:
            around = {key: scope[key] for key in (OWNER, REQUEST) if key in scope}
        scope[OWNER] = self.owner
        request = None
        if scope["type"] == "http":
            request = scope[REQUEST] = RequestTasks(self.owner, scope)
        try:
            await self.app(scope, receive, send)
        finally:
            scope.update(around)
        if request is not None and request.unkept is not None:
            await request.keep(*request.unkept)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        # After the application's own start and before its own end, whose resources tasks may use.
        is_ours = False  # and no other application's, which has the same owner

        async def receive_late() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and is_ours:
                await self.owner.stop()
            return message

        async def send_late(message: Message) -> None:
            nonlocal is_ours
            if message["type"] == "lifespan.startup.complete":
                is_ours = not self.owner.is_started
                await self.owner.start()  # what it raises the application tells its server
            await send(message)

        try:
            await self.app(scope, receive_late, send_late)
        finally:
            # The server leaves without a word, or the application has enqueued outside of our life.
            if is_ours or not self.owner.is_started:
                await self.owner.stop(0)


class Innermost:
    """The innermost middleware: it answers a request whose Idempotency-Key has an answer.

    Not further out, where it would answer before authentication, and without CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request: RequestTasks = scope[REQUEST]
        app = self.app
        if idempotency.is_asked_for(scope):
            answer, receive = await _earlier_answer(request, receive)
            app = answer or app
        request.is_inside = app is self.app
        try:
            await app(scope, receive, send)
        except (Refused, asyncio.CancelledError) as error:
            if request.was_sent:
                raise
            # Refused was an answer to an error.
            refused = error if isinstance(error, Refused) else _cut_off(error)
            await (await problems.answer(Request(scope), refused))(scope, receive, send)
        finally:
            request.is_inside = False


async def _earlier_answer(
    request: RequestTasks, receive: Receive
) -> tuple[Response | None, Receive]:
    try:
        body, receive = await _read(request.scope, receive, request.owner.max_keyed_body)
        key = idempotency.key_of(request.scope, body)
        database = request.owner.opened()
        answer = await idempotency.earlier_answer(database, key, request.headers_of)
    except HTTPException as error:
        answer = await problems.answer(Request(request.scope), error)
    if answer is None:
        request.key = key
    return answer, receive


def watch_responses() -> None:
    """Wrap `__call__` of every response class there is, and of those to come."""
    classes = [Response]
    while classes:
        cls = classes.pop()
        _watch(cls)
        classes += cls.__subclasses__()
    if "__init_subclass__" not in vars(Response):
        Response.__init_subclass__ = classmethod(_watch_new)  # type: ignore[assignment]


def _watch_new(cls: type[Response], /, **kwargs: Any) -> None:
    super(Response, cls).__init_subclass__(**kwargs)
    _watch(cls)


def _watch(cls: type[Response]) -> None:
    call: Call | None = vars(cls).get("__call__")
    if call is None or hasattr(call, "watches"):
        return

    @functools.wraps(call)
    async def watched(self: Response, scope: Scope, receive: Receive, send: Send) -> None:
        request: RequestTasks | None = scope.get(REQUEST)
        if request is None:
            _warn_of_lost(self)
        elif request.concerns(self):
            response = await _taken_over(request, self)
            request.was_sent = True
            if response is not self:
                await response(scope, receive, send)
                return
        else:
            request.was_sent = True
        await call(self, scope, receive, send)

    watched.watches = True  # type: ignore[attr-defined]
    cls.__call__ = watched  # type: ignore[method-assign]


async def _taken_over(request: RequestTasks, response: Response) -> Response:
    try:
        return await request.take_over(response)
    except asyncio.CancelledError as error:
        refused: Refused = _cut_off(error)
        refused.__cause__ = error
    except Refused as error:
        refused = error
    if request.is_inside:  # where dependencies are to see it, and exception handlers answer
        raise refused
    return await problems.answer(Request(request.scope), refused)


def _cut_off(error: asyncio.CancelledError) -> CutOff:
    """Say what the server means that ends; it would answer with a bare 500.

    Raises the error where somebody else has cancelled the request, such as a middleware's timeout.
    """
    if not server.is_stopping():
        raise error
    return CutOff("this process ends")


def _warn_of_lost(response: Response) -> None:
    background = getattr(response, "background", None)
    if background is None or isinstance(background, Started):
        return
    for name in task_names(background):
        if name not in _warned:
            _warned.add(name)
            log.warning(
                "%s is under @task, but runs in memory only: its application has no "
                "Afterwards; call install(app)",
                name,
            )


_warned: set[str] = set()


async def _read(scope: Scope, receive: Receive, most: int) -> tuple[bytes, Receive]:
    """Read a body of at most so many bytes, and return it with what gives it once more."""
    if (announced(scope) or 0) > most:
        raise too_large(most)
    async with in_time():
        body = await _received(counted(receive, most))
    unread: list[Message] = [{"type": "http.request", "body": body}]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return body, again


async def _received(receive: Receive) -> bytes:
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
    raise Problem(400, "The connection ended before the body did.")  # for the log
