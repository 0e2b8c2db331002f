"""Who asks: nobody gets to a route that needs a user but users and operators."""

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

import users
from afterwards import idempotency, problems
from afterwards.http.mounting import Route as LibrarysRoute
from afterwards.http.operators import Operators
from afterwards.problems import Problem

if TYPE_CHECKING:
    from web.tokens import Tokens

NEEDED = "Send a user's token, from POST /token, as Authorization: Bearer."
WRONG = "This token is not, or no longer, good: get another one from POST /token."


class Authentication:
    """A middleware that puts who asks into `request.state.user`: None is an operator.

    Not a part of the route: what has an Idempotency-Key is answered before that.
    """

    def __init__(self, app: ASGIApp, tokens: "Tokens") -> None:
        self.app, self.tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and (route := _closed(scope)):
            request = Request(scope)
            try:
                request.state.user = await self._user(request, route)
            except HTTPException as refusal:
                app = await problems.answer(request, refusal)
        await app(scope, receive, send)

    async def _user(self, request: Request, route: BaseRoute) -> users.User | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip(" ") if scheme.lower() == "bearer" else ""
        if not self.tokens.is_one(given):
            _admit_operator(request, given, route)
            return None
        subject = self.tokens.subject(given)
        database = request.app.state.afterwards.database
        user = await users.with_subject(database, subject) if subject else None
        if user is None:
            raise Problem(401, WRONG, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        request.scope[idempotency.CLIENT] = subject  # with the next token, too
        return user


def _closed(scope: Scope) -> BaseRoute | None:
    """Return the route that the request gets to, if it needs a user."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    for route in scope["app"].routes:
        if route.matches(scope)[0] is Match.FULL:
            # The library's own routes ask for themselves. Of another kind, such as a mount, nobody
            # has said that it is public.
            public = getattr(route, "public", None)
            is_open = public is not None and method in ("OPTIONS", *public)
            is_open |= type(route) is LibrarysRoute
            return None if is_open else route
    return None


def _admit_operator(request: Request, given: str, route: BaseRoute) -> None:
    operators: Operators = request.app.state.operators
    # By a token or a login alone: that a request comes from this machine is not enough here.
    if not operators.tokens or not (given or operators.session(request)):
        raise Problem(401, NEEDED, headers={"WWW-Authenticate": "Bearer"})
    is_reading = request.method in ("GET", "HEAD") and not getattr(route, "get_enqueues", False)
    operators.admit(request, changes=not is_reading)
