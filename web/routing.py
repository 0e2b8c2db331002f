"""A route that answers with and without its trailing slash, and bounds the request's body."""

import asyncio
import re
from typing import Any

from starlette import routing
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.errors import CutOff
from afterwards.problems import Problem
from settings import MAX_BODY


class Route(routing.Route):
    """Starlette's route; `max_body` is in bytes."""

    def __init__(self, path: str, endpoint: Any, *, max_body: int = MAX_BODY, **options: Any):
        super().__init__(path, endpoint, **options)
        self.path_regex = re.compile(self.path_regex.pattern.rstrip("$").rstrip("/") + "/?$")
        self.app = _Bounded(self.app, max_body)


class _Bounded:
    """Refuses a body that is too large: unread where its length is announced, or while it is read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b""
        )
        if not announced.isdigit():
            receive = _counted(receive, self._most)
        elif int(announced.lstrip(b"0")[:20] or b"0") > self._most:
            raise _too_large(self._most)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError as error:  # by the server, which would answer 500
            if scope["afterwards.request"].was_sent:
                raise
            raise CutOff("this process ends") from error


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
