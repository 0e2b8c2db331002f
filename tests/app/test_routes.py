"""Every route's answer, in this process; what comes after an answer is in tests/process."""

import re

import httpx
import pytest
from starlette.applications import Starlette

import asgi_app
from settings import settings
from tests.app.asking import ADA, drained, ids
from tests.lifespan import living

pytestmark = pytest.mark.anyio


async def test_the_index_lists_every_route(client: httpx.AsyncClient) -> None:
    body = (await client.get("/")).json()
    assert body.keys() == {"name", "version", "status", "routes"}
    assert body["status"] == "ok"
    assert {"GET /", "GET /test", "POST /users/", "GET /users/", "GET /images/{job_id}"} <= set(
        body["routes"]
    )


async def test_health_tells_of_each_part(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "database": "ok",
        "worker": {"status": "ok", "queued": 0, "running": 0, "oldest_waiting": 0.0, "rate": 0.0},
        "tracing": "off",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "tasks"),
    [
        ("GET", "/test", 200, None, 1),
        (
            "POST",
            "/api/notifications/notify",
            200,
            {"ok": True, "message": "Notification scheduled in background"},
            1,
        ),
        ("POST", "/action", 202, {"status": "processing"}, 1),
        ("POST", "/complex-action", 202, {"status": "processing", "tasks": 3}, 3),
    ],
)
async def test_a_bodyless_route_answers_and_schedules(
    app: Starlette,
    client: httpx.AsyncClient,
    method: str,
    path: str,
    status: int,
    body: object,
    tasks: int,
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.text == "ok" if body is None else response.json() == body
    assert len(ids(response)) == tasks
    await drained(app)


async def test_the_sync_task_answers_after_work(client: httpx.AsyncClient) -> None:
    response = await client.post("/sync-task/")
    assert (response.status_code, ids(response)) == (200, [])
    body = response.json()
    assert body.pop("duration") >= settings.work_seconds
    assert body == {"status": "completed"}


@pytest.mark.parametrize("path", ["/test", "/test/", "/users", "/users/", "/health/"])
async def test_trailing_slashes_make_no_difference(
    app: Starlette, client: httpx.AsyncClient, path: str
) -> None:
    assert (await client.get(path)).status_code == 200
    await drained(app)


async def test_body_and_header_name_one_task(app: Starlette, client: httpx.AsyncClient) -> None:
    response = await client.post("/async-task/")
    assert response.status_code == 202
    assert response.json() == {"task_id": ids(response)[0], "status": "processing"}
    await drained(app)


@pytest.mark.parametrize(
    "item", [{"id": 7, "name": "x"}, {"id": "a\u0000b"}, {"id": None, "deep": [[[{"a": 1.5}]]]}]
)
async def test_any_object_with_id_is_processed(
    app: Starlette, client: httpx.AsyncClient, item: dict[str, object]
) -> None:
    response = await client.post("/process", json=item)
    assert response.status_code == 202
    assert response.json() == {"status": "accepted", "id": item["id"]}
    await drained(app)


async def test_an_items_fields_are_only_counted(
    app: Starlette, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await client.post("/process", json={"id": "i" * 1000, "stranger": 1, "token": "secret"})
    await drained(app)
    [told] = [record.getMessage() for record in caplog.records if "processed" in record.msg]
    assert re.fullmatch(r"processed item 'i+\.\.\.i+' with 3 fields", told)
    assert len(told) < 100


async def test_the_log_welcomes_an_added_user(
    app: Starlette, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = await client.post("/users/", json=ADA)
    assert response.status_code == 201
    user = response.json()
    assert user.keys() == {"id", "email", "username", "created_at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", user["created_at"])
    assert (await client.get("/users/")).json() == [user]
    await drained(app)
    assert "no mail service is set up; mail to ada@example.com" in caplog.text


async def test_a_user_with_notifications_is_announced(
    app: Starlette, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = await client.post("/users/with-notifications/", json=ADA)
    assert response.status_code == 201
    assert len(ids(response)) == 2
    await drained(app)
    assert "no Discord webhook is set up; message: ada has joined." in caplog.text


async def test_a_taken_field_schedules_nothing(app: Starlette, client: httpx.AsyncClient) -> None:
    await client.post("/users/", json=ADA)
    response = await client.post("/users/", json={"email": "ADA@example.com", "username": "eve"})
    assert response.status_code == 409
    assert response.json()["errors"] == [{"pointer": "#/email", "detail": "Another user has it."}]
    assert ids(response) == []
    await drained(app)


async def test_users_come_in_pages(app: Starlette, client: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await client.post("/users/", json={"email": f"{name}@example.com", "username": name})
    first = (await client.get("/users/?limit=2")).json()
    assert [user["username"] for user in first] == ["a", "b"]
    rest = (await client.get(f"/users/?limit=2&after={first[-1]['id']}")).json()
    assert [user["username"] for user in rest] == ["c"]
    await drained(app)


@pytest.mark.parametrize("job_id", ["task-1", "..%2Fservice.db", "%00", "a" * 300])
async def test_a_missing_image_is_not_found(client: httpx.AsyncClient, job_id: str) -> None:
    response = await client.get(f"/images/{job_id}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_without_database_503_accepts_nothing(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "database_url", "postgres://127.0.0.1:1/none")
    app = asgi_app.create_app(settings)
    async with living(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            health, added = await client.get("/health"), await client.post("/users/", json=ADA)
    assert (health.status_code, health.json()["database"]) == (503, "down")
    assert health.json()["worker"] == {
        "status": "waits for the database",
        "running": 0,
        "rate": 0.0,
    }
    assert (added.status_code, ids(added)) == (503, [])
    assert added.headers["content-type"] == "application/problem+json"
    assert int(added.headers["retry-after"]) > 0
