"""A request's name: that of its route, so that ids in paths make no endpoints."""

from collections.abc import Mapping
from typing import Any

from starlette.routing import Match, Route

from afterwards.redaction import storable

UNMATCHED = "/{unmatched}"  # the name of every path that has no route, whatever its method
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
NOTHING: dict[str, Any] = {}


def name_of(scope: Mapping[str, Any]) -> str:
    """Name the span for the route, so that ids in paths make no endpoints."""
    path = _path_of(scope)
    if path is None:
        return UNMATCHED
    return storable(f"{scope['method'] if scope['method'] in METHODS else 'OTHER'}:{path}")


def _path_of(scope: Mapping[str, Any]) -> str | None:
    route, is_mounted = scope.get("route"), "app_root_path" in scope
    if route is None and "router" not in scope:
        route = _route_ahead(scope)
    if route is None and (is_mounted or "endpoint" not in scope):
        return None
    if route is None or is_mounted:  # Starlette before 1.0 tells no route; a mounted one is a part
        return _with_names(scope["path"], scope.get("path_params") or {})
    # FastAPI's routes bear their own part only, in routers that others include.
    whole = scope.get("fastapi", NOTHING).get("effective_route_context", route)
    path: str = whole.path
    return path


def _route_ahead(scope: Mapping[str, Any]) -> Route | None:
    """Find the route of a request that was answered before any was looked for.

    So a middleware does, and whatever has an Idempotency-Key that was seen before. None is found
    within a mount.
    """
    asked = dict(scope)
    for route in getattr(scope.get("app"), "routes", ()):
        if isinstance(route, Route) and route.matches(asked)[0] is Match.FULL:
            return route
    return None


def _with_names(path: str, parameters: Mapping[str, object]) -> str | None:
    """Put the parameters' names in place of their values; None if one is not found."""
    for name, value in parameters.items():
        before, found, after = f"{path}/".partition(f"/{value}/")
        if not found:
            return None
        path = f"{before}/{{{name}}}/{after}"[:-1]
    return path
