"""A browser's login: a signed cookie that names the token it was made with, and ends with it."""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from itsdangerous import BadSignature, Signer, TimestampSigner
from starlette.requests import Request
from starlette.responses import Response

from afterwards.http.tokens import Token

SECONDS = 12 * 3600


class Session(NamedTuple):
    """Who is logged in, by which cookie."""

    token: Token
    cookie: str

    def form_token(self) -> str:
        """Return what a form must bear, so that it can only have come from a page of ours."""
        return _Form(self.token.text).get_signature(self.cookie).decode()

    def has_form_token(self, given: str) -> bool:
        """Tell whether this is what `form_token` gave the form."""
        return _Form(self.token.text).verify_signature(self.cookie, given)


class _Login(TimestampSigner):
    # The key is the token: a session ends when its token is taken away, in every process at once.
    def __init__(self, key: str) -> None:
        super().__init__(key, salt="afterwards.login", digest_method=sha256)


class _Form(Signer):
    def __init__(self, key: str) -> None:
        super().__init__(key, salt="afterwards.form", digest_method=sha256)


def begin(request: Request, response: Response, token: Token) -> None:
    """Log in the browser that gets the response."""
    response.set_cookie(
        _name(request, token),
        _Login(token.text).sign(secrets.token_hex(8)).decode(),
        max_age=SECONDS,
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )


def end(request: Request, response: Response, token: Token) -> None:
    """Log out the browser that gets the response."""
    response.delete_cookie(
        _name(request, token), path="/", secure=_is_secure(request), httponly=True
    )


def find(request: Request, tokens: Sequence[Token]) -> Session | None:
    """Return the session that the request's cookies bear, if one is whole and not too old."""
    for token in tokens:
        cookie = request.cookies.get(_name(request, token), "")
        try:
            _Login(token.text).unsign(cookie, max_age=SECONDS)
        except BadSignature:
            continue
        return Session(token, cookie)
    return None


def _name(request: Request, token: Token) -> str:
    # By the token, because services on other ports of a host share its cookies. With that prefix
    # no other host of the domain can set it.
    host = "__Host-" if _is_secure(request) else ""
    return f"{host}afterwards-{token.fingerprint}"


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
