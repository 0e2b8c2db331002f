"""Starlette with a task that is retried and survives `kill -9`, and has a page: `uvicorn starlette_app:app`."""

import urllib.request

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from afterwards import Afterwards, task


@task(attempts=5)
def announce(name: str) -> None:
    urllib.request.urlopen("https://example.com/hook", name.encode(), timeout=30).close()


async def sign_up(request: Request) -> JSONResponse:
    name = request.path_params["name"]
    return JSONResponse({"name": name}, background=BackgroundTask(announce, name))


app = Starlette(routes=[Route("/users/{name}", sign_up, methods=["POST"])])
afterwards = Afterwards("sqlite:///tasks.db")
afterwards.install(app)
app.mount("/tasks", afterwards.http())
