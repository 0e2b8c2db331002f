"""Which pages may send requests here: our own, and those of the origins in CORS_ORIGINS."""

from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from afterwards import problems
from afterwards.http.origins import is_from_elsewhere

# What a page may read and send beyond what every page may. Of SkyWalking's client for browsers is
# sw8.
EXPOSED = ("Task-Id", "Location", "Retry-After", "RateLimit", "RateLimit-Policy")
SENT = ("Authorization", "Idempotency-Key", "sw8")
METHODS = ("GET", "HEAD", "POST", "DELETE")

CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossOrigin(CORSMiddleware):
    """Starlette's, without cookies, and with a problem where it refuses a pre-flight."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(app, origins, METHODS, SENT, expose_headers=EXPOSED)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a pre-flight."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        kept = {name: value for name, value in response.headers.items() if "content" not in name}
        return problems.response(400, f"{bytes(response.body).decode()}.", headers=kept)


def is_foreign(headers: Sequence[tuple[bytes, bytes]], allowed: Collection[bytes]) -> bool:
    """Tell whether a page of another origin sent the request, and none of the allowed ones.

    It is asked of changes only: with them a browser always sends the page's Origin, and what is no
    browser sends none.
    """
    for name, origin in headers:
        if name == b"origin":
            is_allowed = origin in allowed or b"*" in allowed
            return not is_allowed and is_from_elsewhere(Headers(raw=[*headers]))
    return False
