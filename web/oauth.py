"""What is asked at /token, as OAuth 2 has it: a form with a user's name and password (RFC 6749).

What that standard names is answered as it says, in JSON with `error`, beside the members of a
problem; anything else that goes wrong is a problem like any other's.
"""

from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse

from afterwards import problems
from afterwards.problems import Problem
from web import bodies

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 20
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Asked(NamedTuple):
    """Who asks for a token."""

    username: str
    password: str


class Refused(Exception):
    """No token is given; `error` is one of RFC 6749's words (section 5.2)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error, self.description = error, description


async def read(request: Request) -> Asked:
    """Read the form; raise `Refused`, or a `Problem` (408, 413, 415)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(415, f"Send a form, as {FORM}.")
    fields = _fields(await bodies.whole(request))
    kind = fields.get("grant_type")
    if kind is not None and kind != "password":
        raise Refused("unsupported_grant_type", "grant_type is password here.")
    if "scope" in fields:
        raise Refused("invalid_scope", "There are no scopes here: leave it out.")
    missing = [name for name in ("grant_type", *Asked._fields) if name not in fields]
    if missing:
        raise Refused("invalid_request", f"Missing: {', '.join(missing)}.")
    return Asked(fields["username"], fields["password"])


def answer(token: str, seconds: int) -> JSONResponse:
    """Answer with a token that is good for so many seconds."""
    body = {"access_token": token, "token_type": "Bearer", "expires_in": seconds}
    return JSONResponse(body, headers=NO_STORE)


def refusal(refused: Refused) -> JSONResponse:
    """Answer why there is no token."""
    error: dict[str, Any] = {"error": refused.error, "error_description": refused.description}
    problem = problems.body(400, refused.description)
    return JSONResponse({**error, **problem}, 400, NO_STORE)


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        description = f"The body is no form in UTF-8, of {MAX_FIELDS} fields at most."
        raise Refused("invalid_request", description) from None
    given = [(name, value) for name, value in pairs if value]  # an empty one counts as left out
    if len({name for name, _ in given}) < len(given):
        raise Refused("invalid_request", "A field stands there more than once.")
    return dict(given)
