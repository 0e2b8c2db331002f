"""A route that answers with and without its trailing slash, and bounds the request's body."""

from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from afterwards.http.mounting import Route as SlashedRoute
from afterwards.request_bodies import announced, counted, too_large
from settings import MAX_BODY


class Route(SlashedRoute):
    """Starlette's route; `max_body` is in bytes.

    Where users have tokens it needs one, but for the methods that are `public`. Where its
    `get_enqueues`, an operator who only reads may not even get it.
    """

    def __init__(
        self,
        path: str,
        endpoint: Any,
        *,
        public: Collection[str] = (),
        max_body: int = MAX_BODY,
        get_enqueues: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(path, endpoint, **options)
        self.public = public
        self.get_enqueues = get_enqueues
        self.app = _Bounded(self.app, max_body)


class _Bounded:
    """Refuses a body that is too large: unread if its length is announced, or while it is read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = announced(scope)
        if length is None:
            receive = counted(receive, self._most)
        elif length > self._most:
            raise too_large(self._most)
        await self._app(scope, receive, send)
