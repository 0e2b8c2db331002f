"""Who is an operator: whoever has the token, or, without one, whoever is on this machine."""

import hmac
import re
from ipaddress import ip_address

from starlette.requests import Request

from afterwards.problems import Problem

NO_TOKEN = (
    "No operator's token is set, so this answers clients on this machine only. "
    "Set one to use it from afar: ADMIN_TOKEN, or the token of http()."
)
TOKEN = re.compile("[!-~][ -~]{14,}[!-~]")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


def check(token: str | None) -> None:
    """Raise ValueError for a token that is easily guessed, or that no header can carry."""
    if token is not None and not TOKEN.fullmatch(token):
        raise ValueError("token: takes a secret of 16 characters or more, all printable ASCII")


def admit(request: Request, token: str | None) -> None:
    """Raise a `Problem`, 401 or 403, for anyone who is no operator."""
    if token is None:
        if not _is_loopback(request):
            raise Problem(403, NO_TOKEN)
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Bytes, as they were sent: compare_digest refuses text beyond ASCII, which a stranger may send.
    is_same = hmac.compare_digest(given.strip(" ").encode("latin-1"), token.encode())
    if scheme.lower() != "bearer" or not is_same:
        detail = "Send the operator's token as Authorization: Bearer."
        raise Problem(401, detail, headers=CHALLENGE)


def _is_loopback(request: Request) -> bool:
    # What came through a proxy on this machine was sent by somebody else.
    if request.client is None or {"forwarded", "x-forwarded-for"} & {*request.headers}:
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
