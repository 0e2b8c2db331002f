"""Who is an operator: who has a token or has logged in with it, or, in development, is here."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from afterwards.addresses import network_of
from afterwards.http import sessions
from afterwards.http.guesses import FREE, LONGEST_WAIT, Guesses
from afterwards.http.origins import address_of, is_from_elsewhere, is_local
from afterwards.http.sessions import Session
from afterwards.http.tokens import Given, Role, Token, matching, tokens
from afterwards.problems import Problem
from afterwards.store.changes import Change

log = logging.getLogger("tasks")

NO_TOKEN = (
    "No operator's token is set, so this answers nobody. Set ADMIN_TOKEN (or the token of http()); "
    "for development on this machine alone, DEVELOPMENT=1 (or http(development=True)) will do."
)
NOT_LOCAL = (
    "No operator's token is set, so this answers only programs on this machine that ask by its "
    "loopback address, through no proxy and for no other origin's page. "
    "Set ADMIN_TOKEN (or the token of http()) to use it otherwise."
)
NEEDED = "Send an operator's token as Authorization: Bearer, or log in with a browser."
WRONG = "That is no operator's token, or no longer one."
READ_ONLY = "This token may only read; changes take one of ADMIN_TOKEN."
ELSEWHERE = "A page of another origin has sent this; changes are made from a page of this service."
NO_FORM_TOKEN = (
    "A browser's login changes nothing without the form's token, as csrf or X-CSRF-Token."
)
CHALLENGE = {"WWW-Authenticate": "Bearer"}
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Operator:
    """Whoever was admitted; `form_token` is what the forms of a page must bear, as `csrf`."""

    role: Role
    name: str
    address: str
    form_token: str = ""

    def change(self, what: str) -> Change:
        """Return what is written down of a change that this operator makes."""
        return Change(self.name, self.address, what)

    def log(self, what: str, which: Sequence[str]) -> None:
        """Leave a line of a change that was made."""
        more = f" and {len(which) - 1} more" if len(which) > 1 else ""
        log.info("%s from %s: %s %s%s", self.name, self.address, what, which[0], more)


class Operators:
    """Tells who is one; raises ValueError for a token that is none.

    With any token set, an operator needs it. With none, `development` admits whoever is on this
    machine.
    """

    def __init__(
        self, token: Given = None, read_token: Given = None, *, development: bool = False
    ) -> None:
        self.tokens = tokens(token, read_token)
        self.development = development
        self.guesses = Guesses()

    def admit(self, request: Request, changes: bool = False, form_token: str = "") -> Operator:
        """Return who asks, and raise a `Problem` (401, 403, 429) for anyone who is no operator.

        `changes` is for what a reader may not do. A browser's login changes something only with
        its `form_token`, which may also be in the header X-CSRF-Token.
        """
        found = self._found(request, changes or request.method not in SAFE, form_token)
        if changes and found.role is Role.READER:
            raise Problem(403, READ_ONLY)
        return found

    def session(self, request: Request) -> Session | None:
        """Return the browser's login, if it has one."""
        return sessions.find(request, self.tokens)

    def token(self, request: Request, given: str) -> Token:
        """Return the token that a client has given; raise a `Problem`, 401 or 429.

        Its client waits after several wrong ones, unless it has shown this one before.
        """
        client = network_of(address_of(request))
        found, wait = matching(self.tokens, given), self.guesses.wait(client)
        if wait and not (found and self.guesses.has_shown(client, found.fingerprint)):
            raise _too_many(wait)
        if found is None:
            self.guesses.was_wrong(client)
            log.warning("a wrong operator's token from %s", address_of(request))
            raise Problem(401, WRONG, headers=CHALLENGE)
        self.guesses.was_right(client, found.fingerprint)
        return found

    def _found(self, request: Request, is_change: bool, form_token: str) -> Operator:
        address = address_of(request)
        if not self.tokens:
            if not self.development:
                raise Problem(403, NO_TOKEN)
            if not is_local(request):
                raise Problem(403, NOT_LOCAL)
            return Operator(Role.OPERATOR, "this machine", address)
        if (given := _bearer(request)) is not None:
            token = self.token(request, given)
            return Operator(token.role, f"{token.role} {token.fingerprint}", address)
        session = self.session(request)
        if session is None:
            raise Problem(401, NEEDED, headers=CHALLENGE)
        if is_change:
            _require_own_page(request, session, form_token)
        role, name = session.token.role, f"{session.token.role} {session.token.fingerprint}, login"
        return Operator(role, name, address, session.form_token())


def _bearer(request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip(" ") or None if scheme.lower() == "bearer" else None


def _require_own_page(request: Request, session: Session, form_token: str) -> None:
    if is_from_elsewhere(request.headers):
        raise Problem(403, ELSEWHERE)
    if not session.has_form_token(form_token or request.headers.get("x-csrf-token", "")):
        raise Problem(403, NO_FORM_TOKEN)


def _too_many(wait: float) -> Problem:
    seconds = math.ceil(wait)
    headers = {
        "Retry-After": str(seconds),
        "RateLimit-Policy": f'"operators";q={FREE};w={LONGEST_WAIT:.0f}',
        "RateLimit": f'"operators";r=0;t={seconds}',
    }
    return Problem(429, f"Too many wrong tokens: come back in {seconds} s.", headers=headers)
