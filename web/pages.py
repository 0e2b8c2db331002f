"""The pages for people: what `GET /` is in a browser, Swagger UI, ReDoc, and their files.

All of it comes from this process: Swagger's and ReDoc's scripts from the package fastapi-offline,
which is not imported, the rest from `web/static`. Each page says what it may load.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from html import escape
from pathlib import Path
from string import Template

import pydantic_core
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from web.described import OPERATIONS
from web.headers import policy
from web.openapi import JSON, document

STATIC = Path(__file__).parent / "static"
FILES = StaticFiles(directory=STATIC, packages=[("fastapi_offline", "static")])
# ReDoc's mark, which it would fetch from its maker's host; where that fails it does without.
MARK, NO_MARK = b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,"

# Asked for again each time, and sent only if changed: a deploy must not mix with what was kept.
REVALIDATED = {"Cache-Control": "no-cache"}

OURS = {"style": "'self'", "img": "'self' data:"}
# "Try it out" calls the service, and neither of the two may call anybody else.
SCRIPTED = OURS | {"script": "'self'", "connect": "'self'"}
# ReDoc inserts its rules, which no policy hinders, into style elements that are empty; and it has
# one fixed text. Its search runs in a worker that it makes of its own text.
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
FIXED = "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
STYLED = SCRIPTED | {"style": f"'self' {EMPTY} {FIXED}", "worker": "blob:"}
POLICIES = {
    "index.html": policy(**OURS),
    "docs.html": policy(**SCRIPTED),
    "redoc.html": policy(**STYLED),
}

ABOUT = """\
Answers at once, and does the rest afterwards. An answer with a `Task-Id` says that the task is on
disk: it will be done even if this process dies. A POST with an `Idempotency-Key` may be sent again.
What goes wrong is told in `application/problem+json` (RFC 9457). Paths answer with and without a
slash at their end."""


class Kept:
    """An answer whose body is made once, and sent to those only who have not got it yet."""

    def __init__(self, body: bytes, media_type: str) -> None:
        self._body, self._media_type = body, media_type
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """Answer with the body, or 304."""
        headers = REVALIDATED | {"ETag": self._tag}
        if self._tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self._body, media_type=self._media_type, headers=headers)


def index(request: Request, version: str) -> Response:
    """Answer with the page that leads to all the others."""
    response = _page("index.html", request, url=str(request.base_url).rstrip("/"), version=version)
    response.headers["Vary"] = "Accept"
    return response


async def docs(request: Request) -> Response:
    """Answer with Swagger UI."""
    return _page("docs.html", request)


async def redoc(request: Request) -> Response:
    """Answer with ReDoc."""
    return _page("redoc.html", request)


async def static(request: Request) -> Response:
    """Answer with a file of these pages."""
    name = request.path_params["name"]
    if name == "redoc.standalone.js":
        return _redoc().answer(request)
    response = await FILES.get_response(name, request.scope)
    response.headers.update(REVALIDATED)
    return response


def openapi(title: str, version: str) -> Callable[[Request], Awaitable[Response]]:
    """Make the endpoint that answers with the document, which is made when first asked for."""
    info = {"title": title, "version": version, "description": ABOUT}

    async def openapi(request: Request) -> Response:
        state = request.app.state
        if not hasattr(state, "openapi"):
            # A tenth of a second, in which the event loop has other things to do.
            made = await run_in_threadpool(document, request.app.routes, OPERATIONS, info)
            state.openapi = Kept(pydantic_core.to_json(made), JSON)
        kept: Kept = state.openapi
        return kept.answer(request)

    return openapi


def _page(name: str, request: Request, **values: str) -> Response:
    values["root"] = request.scope.get("root_path", "")
    escaped = {key: escape(value) for key, value in values.items()}
    headers = {"Content-Security-Policy": POLICIES[name]}
    return HTMLResponse(_template(name).substitute(escaped), headers=REVALIDATED | headers)


@cache
def _template(name: str) -> Template:
    return Template((STATIC / name).read_text())


@cache
def _redoc() -> Kept:
    path, _ = FILES.lookup_path("redoc.standalone.js")
    return Kept(Path(path).read_bytes().replace(MARK, NO_MARK), "text/javascript")
