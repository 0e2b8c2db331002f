"""The routes of users: they are added, listed, given a token, and erased."""

import logging
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import tasks
import users
from afterwards import Afterwards, problems
from afterwards.http import checking
from afterwards.http.operators import Operators
from afterwards.http.origins import address_of
from afterwards.problems import Problem
from afterwards.store import changes
from afterwards.store.database import Database
from afterwards.times import rfc3339
from web import bodies, oauth, passwords
from web.rates import Rates, client_of

if TYPE_CHECKING:
    from web.tokens import Tokens

log = logging.getLogger("service")

NO_TOKENS = "This service gives no tokens: JWT_SECRET is not set."
NOT_YOURS = "Only the user, or an operator, may do this."
NO_USER = "There is no such user."
ID = re.compile("[1-9][0-9]{0,17}")


class Users(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        page, user = checking.query(request, bodies.Page), _user(request)
        only = user.id if user else None
        found = await users.page(_database(request), limit=page.limit, after=page.after, only=only)
        return JSONResponse([_shown(each) for each in found])

    async def post(self, request: Request) -> Response:
        return await _add_user(request, is_announced=False)


async def add_user_with_notifications(request: Request) -> Response:
    return await _add_user(request, is_announced=True)


async def erase_user(request: Request) -> Response:
    id, user = request.path_params["id"], _user(request)
    if id == "with-notifications":  # another route's path, which takes POST alone
        raise HTTPException(405, headers={"Allow": "POST"})
    operator = None
    if user is None:
        operators: Operators = request.app.state.operators
        operator = operators.admit(request, changes=True)
    elif id != str(user.id):
        raise Problem(403, NOT_YOURS)
    else:
        rates: Rates = request.app.state.rates
        await rates.require(rates.erasures, client_of(request.scope))
    if not ID.fullmatch(id):
        raise Problem(404, NO_USER)
    afterwards: Afterwards = request.app.state.afterwards
    try:
        async with users.erasing(afterwards.database, int(id)) as (connection, erased):
            # Not by the name: a user called resize would erase others' pictures.
            for text in filter(None, (erased.email, erased.subject)):
                await afterwards.erase(text, within=connection)
            if operator:
                change = operator.change("erase user")
                await changes.record(afterwards.database, connection, change, [id])
    except users.Unknown:
        raise Problem(404, NO_USER) from None
    if operator:
        operator.log("erase user", [id])
    return Response(status_code=204)


async def give_token(request: Request) -> Response:
    tokens: Tokens | None = request.app.state.tokens
    rates: Rates = request.app.state.rates
    if tokens is None:
        raise Problem(404, NO_TOKENS)
    try:
        asked = await oauth.read(request)
        # By the name as it looks, which one account may be written in many ways.
        async with rates.guess(request, users.folded(asked.username[: bodies.MAX_NAME])):
            subject = await _subject(_database(request), asked, address_of(request))
    except oauth.Refused as refused:
        return oauth.refusal(refused)
    return oauth.answer(tokens.give(subject), tokens.seconds)


async def _subject(database: Database, asked: oauth.Asked, address: str) -> str:
    known = None
    if len(asked.username) <= bodies.MAX_NAME and "\0" not in asked.username:
        known = await users.credentials(database, asked.username)
    is_right = await passwords.is_right(asked.password, known.password_hash if known else None)
    if known is None or not is_right:
        # Not the name: people type their password there.
        log.warning("a wrong name or password at /token, from %s", address)
        raise oauth.Refused("invalid_grant", "There is no user of this name and password.")
    if passwords.is_dated(known.password_hash):
        await users.renew(database, known, await passwords.hashed(asked.password))
    return known.subject


async def _add_user(request: Request, *, is_announced: bool) -> Response:
    new, password_hash = await _new_user(request)
    afterwards: Afterwards = request.app.state.afterwards
    adding = users.adding(afterwards.database, new.email, new.username, password_hash)
    try:
        async with adding as (connection, user):
            # In the user's own transaction: there is no user without a welcome.
            welcome = (tasks.send_welcome_mail, user.email, user.username)
            await afterwards.enqueue(*welcome, within=connection)
            if is_announced:
                announcement = (tasks.announce_on_discord, user.username, user.email)
                await afterwards.enqueue(*announcement, within=connection)
    except users.Taken as taken:
        errors: list[problems.FieldError] = [
            {"pointer": f"#/{field}", "detail": "Another user has it."} for field in taken.fields
        ]
        detail = "There is such a user already; errors says in which fields."
        raise Problem(409, detail, errors) from None
    return JSONResponse(_shown(user), 201)


async def _new_user(request: Request) -> tuple[bodies.NewUser, str | None]:
    if request.app.state.tokens is None:
        return await bodies.read(request, bodies.NewUser), None
    new = await bodies.read(request, bodies.NewUserWithPassword)
    # Before the transaction, which would hold up others' for as long.
    return new, await passwords.hashed(new.password)


def owner(request: Request) -> tuple[str, ...]:
    """Return the user who asks as tasks take it, that are erased with them; nobody is nothing."""
    user = _user(request)
    return (user.subject,) if user and user.subject else ()


def _user(request: Request) -> users.User | None:
    """Return the user who asks; None for an operator, or for anybody where tokens are off."""
    return getattr(request.state, "user", None)


def _database(request: Request) -> Database:
    database: Database = request.app.state.afterwards.database
    return database


def _shown(user: users.User) -> dict[str, Any]:
    shown = {**asdict(user), "created_at": rfc3339(user.created_at)}
    del shown["subject"]
    return shown
