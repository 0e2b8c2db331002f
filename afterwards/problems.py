"""Every error answer, as `application/problem+json` (RFC 9457)."""

import http
import logging
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from afterwards.errors import Refused

log = logging.getLogger("tasks")


class FieldError(TypedDict):
    """What is wrong at one place of a body; `pointer` is a JSON pointer into it (RFC 6901)."""

    pointer: str
    detail: str


class Problem(HTTPException):
    """An error that a client is told of; `detail` says what to do, `errors` where."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = list(errors)


# Starlette raises these without a word of help.
DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not take that method; the Allow header lists those that it takes.",
}


class Body(TypedDict):
    """A problem, as JSON has it."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[FieldError]]


# A coroutine, because Starlette calls plain functions in threads: those may be what there is no
# more of.
async def answer(request: Request, error: Exception) -> Response:
    """Answer an `HTTPException`, ours or Starlette's."""
    assert isinstance(error, HTTPException)
    status, detail = error.status_code, error.detail
    if status == 405 and request.method == "OPTIONS":
        allowed = (error.headers or {}).get("Allow", "")
        return Response(status_code=204, headers={"Allow": f"{allowed}, OPTIONS"})
    if isinstance(error, Refused):
        log.warning("answering %d: %s", status, error)
    elif not isinstance(error, Problem):
        detail = DETAILS.get(status, detail)
    return response(status, detail, getattr(error, "errors", []), error.headers)


async def answer_bug(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw, and tell the client nothing of it: the log has the traceback."""
    return response(
        500, "The service failed; the request may be sent again. Its log holds the reason."
    )


def response(
    status: int, detail: str, errors: list[FieldError] | None = None, headers: Any = None
) -> JSONResponse:
    """Make the answer that bears a problem."""
    shown = body(status, detail)
    if errors:
        shown["errors"] = errors
    return JSONResponse(shown, status, headers, media_type="application/problem+json")


def body(status: int, detail: str) -> Body:
    """Make the problem itself."""
    return {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
