"""What an operator erases, with no tokens for users."""

import json
import logging

import httpx
import pytest
from starlette.applications import Starlette

from settings import settings
from tests.app.asking import ADA, drained
from tests.app.test_tokens import bearing, serving_here

pytestmark = pytest.mark.anyio


async def everything(app: Starlette) -> str:
    """Return all that the database holds, but for what operators did."""
    database = app.state.afterwards.database
    tables = ("users", "{tasks}", "{answers}")
    return str([await database.all(f"SELECT * FROM {table}") for table in tables])


async def test_a_person_is_erased_everywhere(
    app: Starlette, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    who = {"email": "Ada.L@example.com", "username": "Ada L."}
    headers = {"Idempotency-Key": "k"}
    added = await client.post("/users/with-notifications/", json=who, headers=headers)
    id = added.json()["id"]
    await client.post("/users/", json={"email": "b@example.com", "username": "resize"})
    await client.post("/process", json={"id": 1, "of": ["ada.l@EXAMPLE.com"]})
    await client.post("/process", json={"id": 2, "of": "zada.l@example.com"})
    await drained(app)
    assert "Ada L." in await everything(app)
    assert (await client.delete(f"/users/{id}")).status_code == 204
    held = await everything(app)
    assert "Ada L." not in held
    assert held.casefold().count("ada.l@example.com") == held.count("zada.l@example.com") == 1
    assert "b@example.com" in held
    assert (await client.delete(f"/users/{id}")).status_code == 404
    [change] = await app.state.afterwards.database.all("SELECT what, which FROM {changes}")
    assert (change.what, json.loads(change.which)) == ("erase user", [str(id)])
    assert f"erase user {id}" in caplog.text
    again = await client.post("/users/with-notifications/", json=who, headers=headers)
    assert again.status_code == 201  # not an answer of before
    await drained(app)


async def test_a_users_name_erases_no_tasks(app: Starlette, client: httpx.AsyncClient) -> None:
    named = {"email": "x@example.com", "username": "action"}
    added = await client.post("/users/", json=named)
    await client.post("/action")
    await drained(app)
    assert (await client.delete(f"/users/{added.json()['id']}")).status_code == 204
    names = await app.state.afterwards.database.all("SELECT name FROM {tasks}")
    assert [row.name for row in names] == ["log_action"]


async def test_only_an_operator_erases(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await client.post("/users/", json=ADA)
    erase = f"/users/{added.json()['id']}"
    monkeypatch.setattr(settings, "admin_token", "an operator's token")
    async with serving_here() as client:
        assert (await client.delete(erase)).status_code == 401
        assert (await client.delete(erase, headers=bearing("x" * 20))).status_code == 401
        assert len((await client.get("/users/")).json()) == 1
        assert (
            await client.delete(erase, headers=bearing("an operator's token"))
        ).status_code == 204
    await drained(app)


@pytest.mark.parametrize("id", ["0", "99", "x", "1x", "-1", "9" * 18, "9" * 5000, "%00", "\u0661"])
async def test_nobody_there_is_404(client: httpx.AsyncClient, id: str) -> None:
    response = await client.delete(f"/users/{id}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_without_secret_there_are_no_tokens(client: httpx.AsyncClient) -> None:
    form = {"grant_type": "password", "username": "ada", "password": "x"}
    response = await client.post("/token", data=form)
    assert response.status_code == 404
    assert "JWT_SECRET" in response.json()["detail"]
    response = await client.post("/users/", json=ADA | {"password": "correct horse"})
    assert response.status_code == 422


async def test_no_other_routes_path_is_an_id(client: httpx.AsyncClient) -> None:
    response = await client.delete("/users/with-notifications/")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
