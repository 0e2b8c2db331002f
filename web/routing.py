"""A route that answers with and without its trailing slash, and bounds the request's body."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.http.mounting import Route as SlashedRoute
from afterwards.problems import Problem
from settings import MAX_BODY


class Route(SlashedRoute):
    """Starlette's route; `max_body` is in bytes."""

    def __init__(self, path: str, endpoint: Any, *, max_body: int = MAX_BODY, **options: Any):
        super().__init__(path, endpoint, **options)
        self.app = _Bounded(self.app, max_body)


class _Bounded:
    """Refuses a body that is too large: unread if its length is announced, or while it is read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lengths = (value for name, value in scope["headers"] if name == b"content-length")
        announced = next(lengths, b"")
        if not announced.isdigit():
            receive = _counted(receive, self._most)
        elif int(announced.lstrip(b"0")[:20] or b"0") > self._most:
            raise _too_large(self._most)
        await self._app(scope, receive, send)


def _counted(receive: Receive, most: int) -> Receive:
    left = most

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> Problem:
    detail = f"A body may have {most} bytes at most here."
    return Problem(413, detail, headers={"Connection": "close"})
