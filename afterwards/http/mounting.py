"""Where the application that answers for tasks stands in another one's tree of routes."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from starlette import routing
from starlette.types import ASGIApp, Receive, Scope, Send

from afterwards.http.api import Owner, Tasks


class Route(routing.Route):
    """A route whose path may end in a slash or not."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        bare = self.path_regex.pattern.removesuffix("$").removesuffix("/")
        self.path_regex = re.compile(bare + "/?$")


class WithoutSlash(routing.Route):
    """The path of a mount without a slash at its end, which Starlette's `Mount` does not match.

    Another route of that path may still have the methods that the mounted application has not.
    """

    def __init__(self, mount: routing.Mount) -> None:
        super().__init__(mount.path, mount.app, methods=["GET"], include_in_schema=False)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        scope["root_path"] = _whole(scope, root)
        scope["app_root_path"] = scope.get("app_root_path", root)
        await self.app(scope, receive, send)


class WholePath:
    """Gives the routes below the path that begins with `root_path`, as ASGI has it.

    FastAPI's `root_path=`, behind a proxy that strips it, leaves one that does not, and then
    nothing that is mounted matches.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = _whole(scope, scope.get("app_root_path", scope.get("root_path", "")))
        await self.app(scope, receive, send)


def _whole(scope: Scope, stripped: str) -> str:
    path: str = scope["path"]
    return path if f"{path}/".startswith(f"{scope.get('root_path', '')}/") else stripped + path


def path_in(app: Any, owner: Owner) -> str | None:
    """Return the path under which an application, or a router, answers for the owner's tasks.

    None where it does not, or where the path is not one for every request: under a path with
    parameters, or on a host of its own.
    """
    for path, route in _walk(app.routes):
        tasks = _tasks(route)
        if tasks is not None and tasks.owner is owner:
            found = path.removesuffix("/{id}")
            return None if "{" in found else found
    return None


def answer_without_slash(app: Any) -> None:
    """Have what is mounted in an application answer at the mount's path without a slash, too.

    It may be called again, after more has been mounted.
    """
    routes = app.routes
    done = [route.app for route in routes if isinstance(route, WithoutSlash)]
    for route in [*routes]:
        if isinstance(route, routing.Mount | routing.Host):
            answer_without_slash(route)
        if _is_ours(route) and route.path and route.app not in done:
            routes.insert(routes.index(route) + 1, WithoutSlash(route))


def _walk(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for route in routes:
        if isinstance(route, routing.Mount):
            yield from _walk(route.routes, prefix + route.path)
        elif isinstance(route, routing.Route):
            yield prefix + route.path, route
        elif included := getattr(route, "effective_route_contexts", None):  # FastAPI
            yield from _walk((each.starlette_route for each in included()), prefix)


def _tasks(route: Any) -> Tasks | None:
    owned = getattr(getattr(route, "endpoint", None), "__self__", None)
    return owned if isinstance(owned, Tasks) and route.endpoint == owned.one else None


def _is_ours(route: Any) -> bool:
    return isinstance(route, routing.Mount) and any(map(_tasks, route.routes))
