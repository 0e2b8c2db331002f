"""Huey over SQLite: calling the task enqueues, in a plain `def` route, as it blocks."""

import os

from huey import SqliteHuey  # type: ignore[import-not-found]  # it is in .venv-bench alone
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import counting
from benchmarks.plain import ANSWER

FILE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
queue = SqliteHuey(filename=f"{FILE}.huey", fsync=True)


@queue.task()  # type: ignore[untyped-decorator]  # as above
def nothing() -> None:
    counting.one()


def accept(request: Request) -> Response:
    nothing()
    return JSONResponse(ANSWER)


app = Starlette(routes=[Route("/", accept)])
