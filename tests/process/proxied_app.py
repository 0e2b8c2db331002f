"""The service, with a route that tells whom it takes its client for."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_app import app

__all__ = ["app"]


async def seen(request: Request) -> Response:
    client = request.client.host if request.client else None
    told = {"client": client, "scheme": request.url.scheme, "host": request.headers["host"]}
    sent = [name for name in request.headers if "forward" in name]
    return JSONResponse({**told, "headers": sorted(sent), "length": len(await request.body())})


app.router.routes.append(Route("/seen", seen, methods=["GET", "POST"]))
