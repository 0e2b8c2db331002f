"""A request's span is named for its route, and never for an id in its path."""

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from afterwards.skywalking.routes import UNMATCHED, name_of


def scope(path: str, route: str = "", **told: Any) -> dict[str, Any]:
    routed = {"route": SimpleNamespace(path=route)} if route else {}
    return {"method": "GET", "path": path, **routed, **told}


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        (scope("/items/7", "/items/{id}", path_params={"id": "7"}), "GET:/items/{id}"),
        (scope("/items/7", "/items/{id}", method="PROPFIND"), "OTHER:/items/{id}"),
        (
            scope("/in/7/x", "/{id}/x", path_params={"id": 7}, app_root_path=""),
            "GET:/in/{id}/x",
        ),
        (
            scope("/a/b/c", "/{y:path}", path_params={"x": "a", "y": "b/c"}, app_root_path=""),
            "GET:/{x}/{y}",
        ),
        (scope("/items/7", endpoint=name_of, path_params={"id": 7}), "GET:/items/{id}"),
        (scope("/", endpoint=name_of, path_params={}), "GET:/"),
        (
            scope(
                "/api/7",
                "/{id}",
                fastapi={"effective_route_context": SimpleNamespace(path="/api/{id}")},
            ),
            "GET:/api/{id}",
        ),
        (scope("/plain/7", "/plain/{id}", fastapi={}), "GET:/plain/{id}"),
    ],
    ids=[
        *("a route", "a strange method", "a mounted route", "a parameter with a slash"),
        *("an old Starlette", "its root", "an included router", "FastAPI's own route"),
    ],
)
def test_a_span_bears_the_whole_route(scope: dict[str, Any], name: str) -> None:
    assert name_of(scope) == name


@pytest.mark.parametrize(
    "scope",
    [
        scope("/nothing"),
        scope("/files/7", endpoint=name_of, path_params={}, app_root_path=""),
        scope("/in/07", "/{id}", path_params={"id": 7}, app_root_path=""),
    ],
    ids=["no route", "no route in a mount", "an id that is written otherwise"],
)
def test_unknown_routes_share_a_name(scope: dict[str, Any]) -> None:
    assert name_of(scope) == UNMATCHED


def test_what_is_answered_early_bears_its_route() -> None:
    def answer(_: object) -> Response:
        return Response()

    routes = [Mount("/in", routes=[Route("/{id}", answer)]), Route("/items/{id}", answer)]
    early: dict[str, Any] = {"type": "http", "app": Starlette(routes=routes)}
    assert name_of(scope("/items/7", **early)) == "GET:/items/{id}"
    for untold in (scope("/items/7", method="PUT", **early), scope("/in/7", **early)):
        assert name_of(untold) == UNMATCHED
    # That has looked, and found none.
    assert name_of(scope("/items/7", router=early["app"], **early)) == UNMATCHED
