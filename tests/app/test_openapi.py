"""The OpenAPI document tells of every route, and the service's answers are as it tells."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Route

pytest.importorskip("jsonschema", reason="needs requirements-dev.txt")
pytest.importorskip("openapi_spec_validator", reason="needs requirements-dev.txt")

from openapi_spec_validator import OpenAPIV31SpecValidator

import asgi_app
from afterwards import problems
from effects import images
from settings import settings
from tests.app.asking import ADA, drained, ids
from tests.described import complaints, described, resolved, wrong
from tests.lifespan import living
from web.described import OPERATIONS, UNDESCRIBED
from web.openapi import JSON, Answer, Json, Operation, document, operations_of
from web.parts import TASK_ID

# What an answer holds does not depend on the kind of database.
of_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
pytestmark = pytest.mark.anyio
IMAGE = {"image_url": "http://127.0.0.1:9/a.png", "operations": ["resize"]}


def undescribed(routes: list[BaseRoute]) -> set[str]:
    return {*operations_of(routes)} - OPERATIONS.keys() - UNDESCRIBED.keys()


def test_every_route_is_described() -> None:
    assert undescribed(asgi_app.app.routes) == set()


def test_a_forgotten_route_is_named() -> None:
    class Both(HTTPEndpoint):
        async def get(self) -> None: ...

        async def delete(self) -> None: ...

    async def made(request: object) -> None: ...

    new = [Route("/new/{id:int}", made, methods=["POST"]), Route("/both", Both)]
    found = undescribed([*asgi_app.ROUTES, *new])
    assert found == {"POST /new/{id}", "DELETE /both", "GET /both"}


def test_what_is_described_has_a_route() -> None:
    there = {*operations_of(asgi_app.app.routes)}
    assert OPERATIONS.keys() | UNDESCRIBED.keys() <= there
    assert not OPERATIONS.keys() & UNDESCRIBED.keys()


def test_the_document_is_valid_openapi() -> None:
    assert [*OpenAPIV31SpecValidator(described()).iter_errors()] == []
    broken = {**described(), "paths": {"/a": {"get": {"responses": {"200": {}}}}}}
    assert [*OpenAPIV31SpecValidator(broken).iter_errors()]


def examples(told: Json) -> Iterator[tuple[Any, Json]]:
    parts = [resolved(each) for each in told["responses"].values()]
    for part in [*parts, *([told["requestBody"]] if "requestBody" in told else [])]:
        yield from (
            (content["example"], content["schema"])
            for content in part["content"].values()
            if "example" in content
        )
    for part in [resolved(each) for each in told["parameters"]]:
        yield from [(part["example"], part["schema"])] if "example" in part else []


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_are_as_they_are_described(name: str) -> None:
    method, path = name.split(" ")
    found = [*examples(described()["paths"][path][method.lower()])]
    assert len(found) > 5
    assert [each for example in found for each in wrong(*example)] == []


def test_headers_have_true_examples() -> None:
    for header in described()["components"]["headers"].values():
        assert wrong(header["example"], header["schema"]) == []


# What each route is asked, and the statuses of its answers; the client of these tests holds each
# answer against the document.
ASKED: list[tuple[str, dict[str, Any], int]] = [
    ("GET /", {}, 200),
    ("GET /", {"headers": {"Accept": "text/html"}}, 200),
    ("GET /health", {}, 200),
    ("GET /test", {}, 200),
    ("POST /api/notifications/notify", {}, 200),
    ("GET /users/", {}, 200),
    ("GET /users/", {"params": {"limit": 0}}, 422),
    ("GET /users/", {"params": {"limit": "0" * 3000}}, 414),
    ("POST /users/", {"json": ADA}, 201),
    ("POST /users/", {"json": {}}, 422),
    ("POST /users/", {"content": "{", "headers": {"Content-Type": JSON}}, 400),
    ("POST /users/", {"content": "a", "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST /users/", {"content": b"x" * 20_000}, 413),
    ("POST /users/with-notifications/", {"json": ADA}, 201),
    ("POST /token", {"data": {}}, 404),
    ("POST /token", {"json": {}}, 404),
    ("DELETE /users/{id}", {}, 404),
    ("POST /process-image/", {"json": IMAGE}, 202),
    ("GET /images/{job_id}", {}, 404),
    ("POST /sync-task/", {}, 200),
    ("POST /async-task/", {}, 202),
    ("POST /action", {}, 202),
    ("POST /action", {"headers": {"Idempotency-Key": "x" * 300}}, 422),
    ("POST /complex-action", {}, 202),
    ("POST /process", {"json": {"id": 1}}, 202),
    ("GET /tasks", {}, 200),
    ("GET /tasks", {"params": {"state": "x"}}, 422),
    ("GET /tasks", {"params": {"before": "2026"}}, 422),
    ("GET /tasks", {"params": {"before": "2026-01-01T00:00:00Z"}}, 200),
    ("GET /tasks/changes", {}, 200),
    ("GET /tasks/{id}", {}, 404),
    ("DELETE /tasks/{id}", {}, 404),
    ("GET /tasks/{id}/arguments", {}, 404),
    ("POST /tasks/{id}/retry", {}, 404),
]


@of_one_database
@pytest.mark.parametrize(("name", "asked", "status"), ASKED)
async def test_answers_are_as_described(
    app: Starlette, client: httpx.AsyncClient, name: str, asked: dict[str, Any], status: int
) -> None:
    method, path = name.split(" ")
    response = await client.request(method, path.format(id=TASK_ID, job_id=TASK_ID), **asked)
    assert response.status_code == status
    assert complaints(response) == []
    await drained(app)


def test_every_operation_is_asked_here() -> None:
    """A new one needs a line in `ASKED`, or a test of its own below."""
    assert OPERATIONS.keys() - {name for name, _, _ in ASKED} == set()


@of_one_database
async def test_a_tasks_life_is_as_described(app: Starlette, client: httpx.AsyncClient) -> None:
    [id] = ids(await client.post("/process-image/", json=IMAGE))
    await drained(app)
    statuses = [
        (await client.get(f"/tasks/{id}?wait=10")).status_code,
        (await client.get("/tasks?limit=1")).status_code,
        (await client.get(f"/tasks/{id}/arguments")).status_code,
        (await client.delete(f"/tasks/{id}")).status_code,
        (await client.post(f"/tasks/{id}/retry")).status_code,
        (await client.get("/tasks/changes")).status_code,
    ]
    assert statuses == [200, 200, 200, 409, 202, 200]
    await drained(app)


@of_one_database
async def test_a_picture_is_as_described(client: httpx.AsyncClient) -> None:
    settings.images_dir.mkdir()
    (settings.images_dir / f"{TASK_ID}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert images.find(settings.images_dir, TASK_ID)
    assert (await client.get(f"/images/{TASK_ID}")).headers["content-type"] == "image/png"


@of_one_database
async def test_a_taken_name_is_as_described(app: Starlette, client: httpx.AsyncClient) -> None:
    for status in (201, 409):
        assert (await client.post("/users/", json=ADA)).status_code == status
    await drained(app)


def test_each_routes_door_is_as_described() -> None:
    """What is not public where users have tokens says so."""
    doors = {
        name: name.split(" ")[0] in route.public
        for route in asgi_app.ROUTES
        for name in operations_of([route])
        if name in OPERATIONS
    }
    assert {True, False} == {*doors.values()}
    told = {name: "user" not in OPERATIONS[name].security for name in doors}
    assert told == doors


@pytest.fixture
async def guarded(
    quick: None, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service that asks for tokens, and answers to one host."""
    monkeypatch.setattr(settings, "database_url", database_url)
    monkeypatch.setattr(settings, "admin_token", "a-secret-of-the-tests")
    monkeypatch.setattr(settings, "jwt_secret", "another-secret-of-the-tests-of-32")
    monkeypatch.setattr(settings, "allowed_hosts", "localhost")
    monkeypatch.setattr(settings, "rate_limit", "9/hour")
    async with living(app := asgi_app.create_app(settings)):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


@of_one_database
async def test_refusals_are_as_described(guarded: httpx.AsyncClient) -> None:
    form = {"grant_type": "password", "username": "ada", "password": "correct horse"}
    answers = [
        await guarded.post("/users/", json=ADA),
        await guarded.post("/users/", json={**ADA, "password": "correct horse"}),
        await guarded.post("/token", data=form | {"password": "battery staple"}),
        await guarded.post("/token", data=form),
        await guarded.get("/users/"),
        await guarded.get("/tasks"),
        await guarded.get("/tasks", headers={"Accept": "text/html"}),
        await guarded.post("/action", headers={"Origin": "https://example.com"}),
        await guarded.get("/test", headers={"Host": "example.com"}),
    ]
    token = {"Authorization": f"Bearer {answers[3].json()['access_token']}"}
    answers += [await guarded.get("/users/", headers=token) for _ in range(4)]
    answers.append(await guarded.delete("/users/1", headers=token))
    assert [each.status_code for each in answers][:9] == [
        *(422, 201, 400, 200, 401, 401, 303, 403, 421)
    ]
    assert {each.status_code for each in answers[9:]} == {200, 429}
    assert [each for answer in answers for each in complaints(answer)] == []


@of_one_database
async def test_an_erased_user_is_as_described(guarded: httpx.AsyncClient) -> None:
    await guarded.post("/users/", json={**ADA, "password": "correct horse"})
    operator = {"Authorization": "Bearer a-secret-of-the-tests"}
    for status in (204, 404):
        erased = await guarded.delete("/users/1", headers=operator)
        assert erased.status_code == status
        assert complaints(erased) == []


async def test_an_outage_is_as_described(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "database_url", "postgres://127.0.0.1:1/none")
    async with living(app := asgi_app.create_app(settings)):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = await client.get("/health"), await client.post("/users/", json=ADA)
    assert [each.status_code for each in answers] == [503, 503]
    assert [each for answer in answers for each in complaints(answer)] == []


def answer(status: int = 202, body: object = None, id: str = TASK_ID) -> httpx.Response:
    request = httpx.Request("POST", "http://localhost/action/")
    headers = {"Task-Id": id, "Location": f"/tasks/{TASK_ID}"}
    told = body or {"status": "processing"}
    return httpx.Response(status, json=told, headers=headers, request=request)


def test_an_answer_of_another_kind_is_noticed() -> None:
    assert complaints(answer()) == []
    assert complaints(answer(207)) == ["POST /action/, 207: the status is not described"]
    [missing] = complaints(answer(body={"status": "processing", "more": 1}))
    assert "not valid" in missing
    [header] = complaints(answer(id="task-1"))
    assert "does not match" in header
    [kind] = complaints(answer(503))
    assert kind.endswith("its type is application/json")
    without = answer()
    del without.headers["location"]
    assert complaints(without) == ["POST /action/, 202: Location is missing"]


def test_an_optional_token_is_described() -> None:
    operation = Operation("", "", Answer(200, "", {}), security=("", "operator"))
    found = document([Route("/a", lambda request: None)], {"GET /a": operation}, {})
    assert found["paths"]["/a"]["get"]["security"] == [{}, {"operator": []}]
    assert "401" in found["paths"]["/a"]["get"]["responses"]


def test_problems_are_what_the_service_says() -> None:
    schema = described()["components"]["schemas"]["Problem"]
    said = problems.response(422, "a", [{"pointer": "#/a", "detail": "b"}])
    assert wrong(json.loads(bytes(said.body)), schema) == []
    assert wrong({"title": "a"}, schema)
