"""What is asked of tasks over HTTP, as an application to be mounted, or as routes for a list."""

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware

from afterwards import problems
from afterwards.http.api import Owner, Process, Tasks
from afterwards.http.login import Login
from afterwards.http.mounting import Route, WholePath, answer_without_slash, path_in
from afterwards.http.operators import Operator, Operators

__all__ = [
    "Operator",
    "Operators",
    "Owner",
    "Process",
    "answer_without_slash",
    "make",
    "path_in",
    "routes",
]

ANSWERS: dict[Any, Any] = {HTTPException: problems.answer}


def make(owner: Owner, operators: Operators) -> Starlette:
    """Make the application that answers for the owner's tasks, wherever it is mounted."""
    return Starlette(
        routes=_routes(owner, operators),
        middleware=[Middleware(WholePath)],
        exception_handlers=ANSWERS | {Exception: problems.answer_bug},
    )


def routes(owner: Owner, operators: Operators, *, prefix: str) -> list[Route]:
    """List the same routes under `prefix`, for an application's own list.

    They answer their errors as `make`'s do; a path and a method that nothing has are the
    application's.
    """
    around = [Middleware(WholePath), Middleware(ExceptionMiddleware, handlers=ANSWERS)]
    return _routes(owner, operators, prefix.rstrip("/"), around)


def _routes(
    owner: Owner,
    operators: Operators,
    prefix: str = "",
    middleware: Sequence[Middleware] = (),
) -> list[Route]:
    tasks, login = Tasks(owner, operators), Login(operators)
    table = [
        ("", tasks.index, ["GET"]),
        ("/login", login.login, ["GET", "POST"]),
        ("/logout", login.logout, ["GET", "POST"]),
        ("/changes", tasks.changes, ["GET"]),
        ("/{id}", tasks.one, ["GET", "DELETE"]),
        ("/{id}/arguments", tasks.arguments, ["GET"]),
        ("/{id}/retry", tasks.retry, ["POST"]),
    ]
    return [
        Route(
            prefix + path or "/",
            endpoint,
            methods=methods,
            name=f"afterwards.{endpoint.__name__}",
            middleware=middleware,
        )
        for path, endpoint, methods in table
    ]
