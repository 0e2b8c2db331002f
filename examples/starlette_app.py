"""Starlette, with a task that survives `kill -9` and has a page: `uvicorn starlette_app:app`."""

import urllib.request

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from afterwards import Afterwards, task

afterwards = Afterwards("sqlite:///tasks.db")


@task(attempts=5)
def announce(name: str) -> None:
    urllib.request.urlopen("https://example.com/hook", name.encode(), timeout=30).close()


async def sign_up(request: Request) -> Response:
    background = BackgroundTask(announce, request.path_params["name"])
    return Response(status_code=202, background=background)


app = Starlette(
    routes=[
        Route("/users/{name}", sign_up, methods=["POST"]),
        Mount("/tasks", afterwards.http()),
    ]
)
afterwards.install(app)
