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

from afterwards import idempotency, problems
from afterwards.background import task_names
from afterwards.errors import Refused
from afterwards.problems import Problem
from afterwards.request_tasks import RequestTasks, Started

if TYPE_CHECKING:
    from afterwards.app import Afterwards

log = logging.getLogger("tasks")

OWNER, REQUEST = "afterwards", "afterwards.request"  # the keys of a scope
READING_SECONDS = 10.0  # for such a body

Call = Callable[[Any, Scope, Receive, Send], Awaitable[None]]


def install(app: Starlette, owner: "Afterwards") -> None:
    """Have the application's responses store their background tasks with `owner`.

    Raises TypeError for what is no Starlette application, RuntimeError for one that has started
    or has installed before.
    """
    if not isinstance(app, Starlette):
        raise TypeError(f"install takes a Starlette or FastAPI application, not {app!r}")
    if hasattr(app.build_middleware_stack, "owner"):
        raise RuntimeError("this application has installed an Afterwards already")
    if app.middleware_stack is not None:
        raise RuntimeError("install before the application starts: its middleware is built")
    watch_responses()
    app.exception_handlers.setdefault(Refused, problems.answer)
    build = app.build_middleware_stack

    def build_with_entry() -> ASGIApp:
        user, outer, inner = app.user_middleware, Middleware(Refusals), Middleware(KeyedRequests)
        app.user_middleware = [outer, *user, inner]
        try:
            return Entry(build(), owner, app)
        finally:
            app.user_middleware = user

    build_with_entry.owner = owner  # type: ignore[attr-defined]  # a mark
    app.build_middleware_stack = build_with_entry  # type: ignore[method-assign]


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
        around = {key: scope[key] for key in (OWNER, REQUEST) if key in scope}
        scope[OWNER] = self.owner
        if scope["type"] == "http":
            scope[REQUEST] = RequestTasks(self.owner, scope)
        try:
            await self.app(scope, receive, send)
        finally:
            scope.update(around)  # what is mounted in another application shares its scope

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        # After the application's own start and before its own end, whose resources tasks may use.
        async def receive_late() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.owner.stop()
            return message

        async def send_late(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.owner.start()  # what it raises the application tells its server
            await send(message)

        await self.app(scope, receive_late, send_late)


class Refusals:
    """The outermost middleware: it answers where a middleware's own response was refused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Refused as error:
            if scope["type"] != "http" or scope[REQUEST].was_sent:
                raise
            await (await problems.answer(Request(scope), error))(scope, receive, send)


class KeyedRequests:
    """The innermost middleware: it answers a request whose Idempotency-Key has an answer.

    Not further out, where it would answer before authentication, and without CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not idempotency.is_asked_for(scope):
            await self.app(scope, receive, send)
            return
        request: RequestTasks = scope[REQUEST]
        try:
            body, receive = await _read(scope, receive, request.owner.max_keyed_body)
            key = idempotency.key_of(scope, body)
            answer = await idempotency.earlier_answer(await request.owner.opened(), key)
        except HTTPException as error:
            answer = await problems.answer(Request(scope), error)
        if answer is None:
            request.key = key
        await (answer or self.app)(scope, receive, send)


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
            response = await request.take_over(self)
            request.was_sent = True
            if response is not self:
                await response(scope, receive, send)
                return
        else:
            request.was_sent = True
        await call(self, scope, receive, send)

    watched.watches = True  # type: ignore[attr-defined]
    cls.__call__ = watched  # type: ignore[method-assign]


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
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if announced.isdigit() and int(announced.lstrip(b"0")[:20] or b"0") > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(READING_SECONDS):
            body, last = await _received(receive, most)
    except TimeoutError:
        detail = f"The body was not there after {READING_SECONDS:g} s."
        raise Problem(408, detail, headers={"Connection": "close"}) from None
    unread = [last]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return body, again


async def _received(receive: Receive, most: int) -> tuple[bytes, Message]:
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        if not message.get("more_body"):
            return bytes(body), {"type": "http.request", "body": bytes(body)}
    return bytes(body), message  # the client has gone


def _too_large(most: int) -> Problem:
    detail = f"A body may have {most} bytes at most here."
    return Problem(413, detail, headers={"Connection": "close"})
