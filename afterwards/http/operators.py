"""Who may use the operator's routes: whoever has the token, or, if there is none, whoever is on this machine."""

import hmac
from ipaddress import ip_address

from starlette.requests import Request

from afterwards.problems import Problem


def admit(request: Request, token: str | None) -> None:
    """Raise a `Problem`, 401 or 403, for anyone who is no operator."""
    if token is None:
        if not _is_loopback(request):
            raise Problem(
                403,
                "Without ADMIN_TOKEN this answers clients on this machine only; set it to use it from afar.",
            )
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # As the bytes that were sent: compare_digest refuses text beyond ASCII, and a stranger may send
    # any.
    if scheme.lower() != "bearer" or not hmac.compare_digest(
        given.strip(" ").encode("latin-1"), token.encode()
    ):
        raise Problem(
            401,
            "Send the operator's token as Authorization: Bearer.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _is_loopback(request: Request) -> bool:
    # What came through a proxy on this machine was sent by somebody else.
    if (
        request.client is None
        or "forwarded" in request.headers
        or "x-forwarded-for" in request.headers
    ):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
