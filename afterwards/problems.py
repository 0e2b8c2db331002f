"""Every error answer, as `application/problem+json` (RFC 9457).

They are coroutines, because Starlette calls plain functions in threads: those may be what there is
no more of.
"""

import errno
import http
import logging
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

log = logging.getLogger("service")

RETRY_SECONDS = 5  # a restart of a database takes about as long


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


class _Body(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[FieldError]]


async def answer(request: Request, error: Exception) -> Response:
    """Answer an `HTTPException`, ours or Starlette's."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail = error.detail if isinstance(error, Problem) else DETAILS.get(status, error.detail)
    return response(status, detail, getattr(error, "errors", []), error.headers)


async def answer_unavailable(request: Request, error: Exception) -> Response:
    """Answer that the database is away: nothing was done, and nothing is promised."""
    log.warning("answering 503, the database is unavailable: %s", error)
    retry = {"Retry-After": str(RETRY_SECONDS)}
    return response(
        503,
        "The database cannot be reached; nothing was done. Send the request again later.",
        headers=retry,
    )


async def answer_no_descriptors(request: Request, error: Exception) -> Response:
    """Answer that this process can open nothing more; raise any other `OSError`, which is a bug."""
    if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        raise error
    log.error(
        "answering 503, out of file descriptors: raise the limit (ulimit -n), or find what holds so many"
    )
    retry = {"Retry-After": str(RETRY_SECONDS)}
    return response(
        503, "The service is out of file descriptors. Send the request again later.", headers=retry
    )


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Answer that a handler's own transaction may have been committed, or not."""
    log.error("answering 503, %s", error)
    detail = (
        "The database was lost while it committed, and whether anything was done is not known. "
        "Look before you send the request again; with an Idempotency-Key it can be sent again without a look."
    )
    return response(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


async def answer_overloaded(request: Request, error: Any) -> Response:
    """Answer that too many tasks wait; `error.retry_after` says when to come back."""
    headers = {"Retry-After": str(error.retry_after)}
    return response(
        503,
        "Too many tasks wait; nothing was accepted. Retry-After says when to come back.",
        headers=headers,
    )


async def answer_wrong_key(request: Request, error: Exception) -> Response:
    """Answer that an Idempotency-Key cannot be used for this request."""
    return response(422, f"Idempotency-Key: {error}.")


async def answer_key_under_way(request: Request, error: Exception) -> Response:
    """Answer that the first request with an Idempotency-Key is still under way."""
    return response(409, f"Idempotency-Key: {error}.", headers={"Retry-After": "1"})


async def answer_cut_off(request: Request, error: Exception) -> Response:
    """Answer that the process ends before the request does; a handler's own transaction may have been committed."""
    detail = (
        "The service is being stopped, and ran out of time for this request; whether anything was done is not known. "
        "Look before you send it again; with an Idempotency-Key it can be sent again without a look."
    )
    return response(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


async def answer_nobody(request: Request, error: Exception) -> Response:
    """Answer a client that left before it had sent its whole body; this is for the access log."""
    return response(400, "The client left before its body was whole.")


async def answer_bug(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw, and tell the client nothing of it: the log has the traceback."""
    return response(
        500, "The service failed; the request may be sent again. Its log holds the reason."
    )


def response(
    status: int, detail: str, errors: list[FieldError] | None = None, headers: Any = None
) -> JSONResponse:
    """Make the answer that bears a problem."""
    body: _Body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status, headers, media_type="application/problem+json")
