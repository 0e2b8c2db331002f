"""Users with JWT_SECRET set: they register with a password, get a token, and need it."""

import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

import asgi_app
import users
from settings import settings
from tests.app.asking import ADA, drained, ids
from tests.lifespan import living
from web import passwords

# What the tables hold is tests/store's matter, what a token is tests/unit's.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]

SECRET, PREVIOUS, OTHER = "s" * 32, "p" * 32, "o" * 32
OPERATOR, READER = "an operator's token", "a reader's own token"
PASSWORD = "correct horse"
BOB = {"email": "bob@example.com", "username": "bob"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def app(
    quick: None, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> AsyncIterator[Starlette]:
    """The service with users' tokens, over an empty database."""
    monkeypatch.setattr(settings, "jwt_secret", SECRET)
    monkeypatch.setattr(settings, "admin_token", OPERATOR)
    monkeypatch.setattr(settings, "admin_read_token", READER)
    monkeypatch.setattr(settings, "database_url", database_url)
    app = asgi_app.create_app(settings)
    async with living(app):
        yield app


@asynccontextmanager
async def serving_here() -> AsyncIterator[httpx.AsyncClient]:
    """Serve once more, with the settings as they are now."""
    app = asgi_app.create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        living(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


async def registered(client: httpx.AsyncClient, who: dict[str, str] = ADA) -> dict[str, object]:
    response = await client.post("/users/", json=who | {"password": PASSWORD})
    assert response.status_code == 201
    user: dict[str, object] = response.json()
    return user


async def asked(
    client: httpx.AsyncClient, username: str = "ada", password: str = PASSWORD
) -> httpx.Response:
    form = {"grant_type": "password", "username": username, "password": password}
    return await client.post("/token", data=form)


async def token(client: httpx.AsyncClient, username: str = "ada") -> str:
    response = await asked(client, username)
    assert response.status_code == 200
    return str(response.json()["access_token"])


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return claims


async def test_a_token_is_answered_as_standardised(client: httpx.AsyncClient) -> None:
    await registered(client)
    response = await asked(client)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body.keys() == {"access_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", settings.jwt_seconds)
    assert jwt.get_unverified_header(body["access_token"])["alg"] == "HS256"
    claims = claims_of(body["access_token"])
    assert claims.keys() == {"sub", "iat", "exp"}
    assert PASSWORD not in str(claims)


async def test_an_answered_user_shows_no_password(
    app: Starlette, client: httpx.AsyncClient
) -> None:
    assert (await registered(client)).keys() == {"id", "email", "username", "created_at"}
    async with app.state.afterwards.database.reading() as connection:
        [row] = (await connection.execute(users.users.select())).all()
    assert row.password_hash.startswith("$argon2id$")
    await drained(app)
    tasks = await app.state.afterwards.database.all("SELECT arguments FROM {tasks}")
    assert PASSWORD not in str([tuple(row), tasks])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/"),
        ("GET", "/users"),
        ("HEAD", "/users/"),
        ("GET", "/test"),
        ("POST", "/api/notifications/notify"),
        ("POST", "/process-image/"),
        ("POST", "/sync-task/"),
        ("POST", "/async-task"),
        ("POST", "/action"),
        ("POST", "/complex-action"),
        ("POST", "/process"),
    ],
)
async def test_what_writes_or_lists_needs_a_token(
    app: Starlette, client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert ids(response) == []
    if method != "HEAD":
        assert response.headers["content-type"] == "application/problem+json"
    await registered(client)
    response = await client.request(method, path, headers=bearing(await token(client)))
    assert response.status_code in (200, 202, 415)  # 415: some take a body
    await drained(app)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/health/", 200),
        ("OPTIONS", "/users/", 204),
        ("OPTIONS", "/action", 204),
        ("POST", "/token", 415),
        ("POST", "/users/", 415),
        ("POST", "/users/with-notifications/", 415),
        ("GET", "/images/task-1", 404),
        ("GET", "/tasks/task-1", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/action", 405),
    ],
)
async def test_the_rest_needs_no_token(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await client.request(method, path)).status_code == status


async def test_users_see_only_themselves(app: Starlette, client: httpx.AsyncClient) -> None:
    ada, bob = await registered(client), await registered(client, BOB)
    for who, name in ((ada, "ada"), (bob, "bob")):
        headers = bearing(await token(client, name))
        assert (await client.get("/users/", headers=headers)).json() == [who]
        after = f"/users/?after={who['id']}"
        assert (await client.get(after, headers=headers)).json() == []
    await drained(app)


async def status_with(client: httpx.AsyncClient, given: str) -> int:
    response = await client.get("/users/", headers=bearing(given))
    if response.status_code == 401:
        assert "invalid_token" in response.headers["www-authenticate"]
        assert response.headers["content-type"] == "application/problem+json"
    return response.status_code


async def test_a_token_that_is_not_good_is_401(client: httpx.AsyncClient) -> None:
    await registered(client)
    claims = claims_of(await token(client))
    assert await status_with(client, jwt.encode(claims, SECRET)) == 200
    for wrong in ({"exp": int(time.time()) - 1}, {"sub": "1"}, {"sub": "\0"}):
        assert await status_with(client, jwt.encode(claims | wrong, SECRET)) == 401
    assert await status_with(client, jwt.encode(claims, OTHER)) == 401
    assert await status_with(client, jwt.encode(claims, "", "none")) == 401


async def test_what_is_no_token_is_401(client: httpx.AsyncClient) -> None:
    await registered(client)
    for given in (b"x", b"a.b.c", b"..", b"\xff.\xff.\xff", b"x" * 60_000):
        headers = [(b"authorization", b"Bearer " + given)]
        assert (await client.get("/users/", headers=headers)).status_code == 401


@pytest.mark.parametrize("scheme", ["", "Basic ", "Token "])
async def test_another_scheme_is_401(client: httpx.AsyncClient, scheme: str) -> None:
    await registered(client)
    headers = {"Authorization": scheme + await token(client)}
    assert (await client.get("/users/", headers=headers)).status_code == 401


async def test_the_previous_secret_verifies_only(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registered(client)
    old = await token(client)
    monkeypatch.setattr(settings, "jwt_secret", OTHER)
    monkeypatch.setattr(settings, "jwt_secret_previous", SECRET)
    async with serving_here() as client:
        assert await status_with(client, old) == 200
        new = await token(client)
        assert await status_with(client, new) == 200
        assert jwt.decode(new, OTHER, algorithms=["HS256"])


async def test_an_operator_sees_all_users(client: httpx.AsyncClient) -> None:
    both = [await registered(client), await registered(client, BOB)]
    for known in (OPERATOR, READER):
        assert (await client.get("/users/", headers=bearing(known))).json() == both
    assert (await client.get("/users/", headers=bearing("x" * 20))).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/action", 202), ("GET", "/test", 200)]
)
async def test_a_readers_token_enqueues_nothing(
    app: Starlette, client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path, headers=bearing(READER))
    assert (response.status_code, ids(response)) == (403, [])
    response = await client.request(method, path, headers=bearing(OPERATOR))
    assert response.status_code == status
    await drained(app)


async def test_a_route_of_another_kind_is_closed(app: Starlette, client: httpx.AsyncClient) -> None:
    """Nobody said of it that it is public."""
    app.router.routes.append(Mount("/more", PlainTextResponse("ok")))
    assert (await client.get("/more/a")).status_code == 401
    assert (await client.get("/more/a", headers=bearing(OPERATOR))).text == "ok"


async def test_this_machine_alone_is_nobody(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "admin_token", None)
    monkeypatch.setattr(settings, "admin_read_token", None)
    async with serving_here() as client:
        assert (await client.get("/tasks")).status_code == 200  # which is what development is for
        assert (await client.get("/users/")).status_code == 401
        assert (await client.get("/users/", headers=bearing("x" * 20))).status_code == 401


async def test_guesses_at_passwords_are_limited(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await registered(client)
    for _ in range(20):
        assert (await asked(client)).status_code == 200
    statuses = [(await asked(client, password=f"wrong {n}")).status_code for n in range(11)]
    assert statuses == [400] * 10 + [429]
    assert caplog.text.count("a wrong name or password at /token, from 127.0.0.1") == 10
    refused = await asked(client)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"


async def test_users_erase_themselves(app: Starlette, client: httpx.AsyncClient) -> None:
    ada, bob = await registered(client), await registered(client, BOB)
    await drained(app)
    headers = bearing(await token(client))
    for other in (bob["id"], 99, "x", "9" * 30, "0", "-1"):
        response = await client.delete(f"/users/{other}", headers=headers)
        assert response.status_code == 403
    assert (await client.delete(f"/users/{ada['id']}")).status_code == 401
    erased = await client.delete(f"/users/{ada['id']}", headers=headers)
    assert (erased.status_code, erased.content) == (204, b"")
    assert (await client.delete(f"/users/{ada['id']}", headers=headers)).status_code == 401
    assert (await client.get("/users/", headers=bearing(OPERATOR))).json() == [bob]
    found = await app.state.afterwards.database.all("SELECT arguments, secrets FROM {tasks}")
    assert "bob@example.com" in str(found)
    assert "ada" not in str(found)


async def test_no_client_erases_many_users(app: Starlette, client: httpx.AsyncClient) -> None:
    """Each time all tasks are read, and with SQLite nobody else can write meanwhile."""
    statuses = []
    for number in range(6):
        who = {"email": f"{number}@example.com", "username": f"user {number}"}
        user = await registered(client, who)
        sent = bearing(await token(client, who["username"]))
        statuses.append((await client.delete(f"/users/{user['id']}", headers=sent)).status_code)
    assert statuses == [204] * 5 + [429]
    erased = await client.delete(f"/users/{user['id']}", headers=bearing(OPERATOR))
    assert erased.status_code == 204
    await drained(app)


async def test_a_users_own_tasks_go_too(app: Starlette, client: httpx.AsyncClient) -> None:
    item = {"id": 7, "of": "a person"}
    image = {"image_url": "http://127.0.0.1:9/a.png", "operations": ["resize"]}
    kept = []
    for who, name in ((ADA, "ada"), (BOB, "bob")):
        await registered(client, who)
        headers = bearing(await token(client, name))
        for path, body in (("/process", item), ("/process-image/", image)):
            kept += ids(await client.post(path, json=body, headers=headers))
    await drained(app)
    assert (await client.delete("/users/1", headers=bearing(OPERATOR))).status_code == 204
    statuses = [(await client.get(f"/tasks/{id}")).status_code for id in kept]
    assert statuses == [404, 404, 200, 200]


async def test_readers_erase_nobody(client: httpx.AsyncClient) -> None:
    ada = await registered(client)
    erase = f"/users/{ada['id']}"
    assert (await client.delete(erase, headers=bearing(READER))).status_code == 403
    assert (await client.delete(erase, headers=bearing(OPERATOR))).status_code == 204
    assert (await client.delete(erase, headers=bearing(OPERATOR))).status_code == 404


async def test_a_key_outlives_its_token(app: Starlette, client: httpx.AsyncClient) -> None:
    for who in (ADA, BOB):
        await registered(client, who)
    first = await token(client)
    later = jwt.encode(claims_of(first) | {"exp": int(time.time()) + 9999}, SECRET)
    answers = [
        await client.post("/action", headers=bearing(each) | {"Idempotency-Key": "k" * 32})
        for each in (first, later, await token(client, "bob"))
    ]
    told = [each.headers["task-id"] for each in answers]
    assert told[0] == told[1] != told[2]
    await drained(app)


async def test_a_kept_key_tells_no_password(app: Starlette, client: httpx.AsyncClient) -> None:
    body, key = json.dumps(ADA | {"password": PASSWORD}).encode(), "k" * 32
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    for _ in range(2):
        assert (await client.post("/users/", content=body, headers=headers)).status_code == 201
    [row] = await app.state.afterwards.database.all("SELECT * FROM {answers}")
    # By whoever has the row alone, and tries a password.
    guess = hashlib.sha256(b"POST /users\n" + body).hexdigest()
    assert guess not in str(row)
    assert key not in str(row)
    await drained(app)


async def test_a_replay_needs_a_token(app: Starlette, client: httpx.AsyncClient) -> None:
    await registered(client)
    headers = bearing(await token(client)) | {"Idempotency-Key": "k"}
    first = await client.post("/action", headers=headers)
    assert first.status_code == 202
    again = await client.post("/action", headers=headers)
    assert again.headers["task-id"] == first.headers["task-id"]
    async with users.erasing(app.state.afterwards.database, 1):
        pass
    refused = await client.post("/action", headers=headers)
    assert (refused.status_code, ids(refused)) == (401, [])
    await drained(app)


async def test_an_erased_users_token_is_401(app: Starlette, client: httpx.AsyncClient) -> None:
    erased = await registered(client)
    given = await token(client)
    assert await status_with(client, given) == 200
    async with users.erasing(app.state.afterwards.database, int(str(erased["id"]))):
        pass
    assert await status_with(client, given) == 401
    again = await registered(client)
    assert again["id"] == erased["id"]  # which is why tokens bear no id
    assert await status_with(client, given) == 401
    assert (await asked(client)).status_code == 200
    await drained(app)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({}, "invalid_request"),
    ({"grant_type": "password"}, "invalid_request"),
    ({"grant_type": "password", "username": "ada"}, "invalid_request"),
    ({"grant_type": "password", "username": "ada", "password": ""}, "invalid_request"),
    ({"username": "ada", "password": PASSWORD}, "invalid_request"),
    (
        {"grant_type": ["password"] * 2, "username": "ada", "password": PASSWORD},
        "invalid_request",
    ),
    ({str(number): "x" for number in range(30)}, "invalid_request"),
    ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
    ({"grant_type": "PASSWORD", "username": "ada", "password": "x"}, "unsupported_grant_type"),
    (
        {"grant_type": "password", "username": "ada", "password": "x", "scope": "all"},
        "invalid_scope",
    ),
    ({"grant_type": "password", "username": "ada", "password": "wrong"}, "invalid_grant"),
    ({"grant_type": "password", "username": "eve", "password": PASSWORD}, "invalid_grant"),
    (
        {"grant_type": "password", "username": "ada\0", "password": PASSWORD},
        "invalid_grant",
    ),
    ({"grant_type": "password", "username": "ada", "password": "x\0"}, "invalid_grant"),
    ({"grant_type": "password", "username": "a" * 9000, "password": "x"}, "invalid_grant"),
    ({"grant_type": "password", "username": "ada", "password": "x" * 9000}, "invalid_grant"),
]


async def test_a_refusal_is_oauths_and_a_problem(client: httpx.AsyncClient) -> None:
    await registered(client)
    assert sum(error == "invalid_grant" for _, error in REFUSED) < 10  # as many may be guessed
    for form, error in REFUSED:
        response = await client.post("/token", data=form, headers=FORM)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"
        body = response.json()
        assert body["error"] == error
        assert (body["type"], body["title"], body["status"]) == ("about:blank", "Bad Request", 400)
        assert body["detail"] == body["error_description"]


async def test_a_form_beyond_utf8_is_400(client: httpx.AsyncClient) -> None:
    for body in (b"\xff=1", b"grant_type=%ff", b"grant_type=password&username=%ed%a0%80"):
        response = await client.post("/token", content=body, headers=FORM)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


async def test_extra_and_empty_fields_are_ignored(client: httpx.AsyncClient) -> None:
    await registered(client)
    form = {"grant_type": "password", "username": "ada", "password": PASSWORD}
    form |= {"scope": "", "client_id": "web", "client_secret": "none", "more": "x"}
    assert (await client.post("/token", data=form)).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
async def test_another_type_is_415(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post("/token", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_name_logs_in_in_any_case(client: httpx.AsyncClient) -> None:
    await registered(client, ADA | {"username": "Ada"})
    assert (await asked(client, "aDA")).status_code == 200
    assert (await asked(client, "adam")).status_code == 400


async def test_a_password_logs_in_in_any_form(client: httpx.AsyncClient) -> None:
    composed, decomposed = "p\xe4sswort", "pa\u0308sswort"
    await client.post("/users/", json=ADA | {"password": composed})
    assert (await asked(client, password=decomposed)).status_code == 200
    for other in ("passwort", "P\xe4sswort", "p\xe4sswort "):
        assert (await asked(client, password=other)).status_code == 400


@pytest.mark.parametrize(
    ("password", "status"),
    [
        ("1234567", 422),
        ("12345678", 201),
        ("\N{PILE OF POO}" * 128, 201),
        ("x" * 129, 422),
        ("1234567\0", 422),
        ("1234567\n", 422),
        (12345678, 422),
        (None, 422),
    ],
    ids=str,
)
async def test_passwords_have_bounds(
    app: Starlette, client: httpx.AsyncClient, password: object, status: int
) -> None:
    response = await client.post("/users/", json=ADA | {"password": password})
    assert response.status_code == status
    if status == 422:
        assert [each["pointer"] for each in response.json()["errors"]] == ["#/password"]
        assert str(password) not in response.text
    await drained(app)


async def test_a_password_is_needed_to_register(client: httpx.AsyncClient) -> None:
    for path in ("/users/", "/users/with-notifications/"):
        response = await client.post(path, json=ADA)
        assert response.status_code == 422
        assert [each["pointer"] for each in response.json()["errors"]] == ["#/password"]


async def test_users_without_password_get_no_token(
    app: Starlette, client: httpx.AsyncClient
) -> None:
    async with users.adding(app.state.afterwards.database, "old@example.com", "old"):
        pass
    for password in ("", "None", PASSWORD):
        assert (await asked(client, "old", password)).status_code == 400


async def test_a_dated_hash_is_renewed(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kept() -> str:
        found = await users.credentials(app.state.afterwards.database, "ada")
        assert found is not None
        return found.password_hash

    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    with monkeypatch.context() as earlier:
        earlier.setattr(passwords, "_hasher", weak)
        await registered(client)
    dated = await kept()
    assert "m=1024" in dated
    assert (await asked(client, password="wrong")).status_code == 400
    assert await kept() == dated
    assert (await asked(client)).status_code == 200
    renewed = await kept()
    assert "m=19456" in renewed
    assert (await asked(client)).status_code == 200
    assert await kept() == renewed
