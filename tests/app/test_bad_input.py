"""Hostile or careless input is answered with a problem that says what to do, never a 500."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

# None of this gets as far as a database, so that one kind of them is enough.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]

JSON = {"content-type": "application/json"}
ADA = {"email": "ada@example.com", "username": "ada"}
IMAGE = {"image_url": "http://example.com/a.png", "operations": ["resize"]}


def problem(response: httpx.Response) -> dict[str, object]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert body["status"] == response.status_code
    assert {"type", "title", "detail"} <= body.keys()
    assert "task-id" not in response.headers
    return body


def pointers(response: httpx.Response) -> list[str]:
    errors = problem(response)["errors"]
    assert isinstance(errors, list)
    assert all(error["detail"] for error in errors)
    return [error["pointer"] for error in errors]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'id': 1}",
        b'{"id": NaN}',
        b'{"id": -Infinity}',
        b'{"id": "\xff"}',
        b'{"id": "\\ud800"}',
        b'{"id": ' + b"9" * 5000 + b"}",
        b"[" * 16_000,
        b'{"id":' * 2_000 + b"1" + b"}" * 2_000,
        b'\xef\xbb\xbf{"id": 1}',
        '{"id": 1}'.encode("utf-16"),
        b'{"id": 1} x',
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_what_is_not_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/process", content=body, headers=JSON)
    assert response.status_code == 400
    problem(response)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/users/", {}, ["#/email", "#/username"]),
        ("/users/", [], ["#"]),
        ("/users/", None, ["#"]),
        ("/users/", ADA | {"admin": True}, ["#/admin"]),
        ("/users/", ADA | {"a/b~c": 1}, ["#/a~1b~0c"]),
        ("/users/", ADA | {"username": 7}, ["#/username"]),
        ("/users/", ADA | {"username": ""}, ["#/username"]),
        ("/users/", ADA | {"username": "x" * 65}, ["#/username"]),
        ("/users/", ADA | {"username": "a\x00b"}, ["#/username"]),
        ("/users/", ADA | {"username": "a\nBcc: all@example.com"}, ["#/username"]),
        ("/users/", ADA | {"username": "a\x9bb"}, ["#/username"]),
        ("/users/", ADA | {"email": None}, ["#/email"]),
        ("/users/", ADA | {"email": "nobody"}, ["#/email"]),
        ("/users/", ADA | {"email": "a@b"}, ["#/email"]),
        ("/users/", ADA | {"email": "Ada <ada@example.com>"}, ["#/email"]),
        ("/users/", ADA | {"email": "a@example.com\nBcc: b@example.com"}, ["#/email"]),
        ("/users/", ADA | {"email": "a" * 400 + "@example.com"}, ["#/email"]),
        ("/process-image/", {}, ["#/image_url", "#/operations"]),
        ("/process-image/", IMAGE | {"operations": []}, ["#/operations"]),
        ("/process-image/", IMAGE | {"operations": ["resize", "explode"]}, ["#/operations/1"]),
        ("/process-image/", IMAGE | {"operations": "resize"}, ["#/operations"]),
        ("/process-image/", IMAGE | {"operations": ["resize"] * 17}, ["#/operations"]),
        (
            "/process-image/",
            IMAGE | {"operations": ["resize", "compress", "resize"]},
            ["#/operations"],
        ),
        ("/process-image/", IMAGE | {"image_url": "example.com/a.png"}, ["#/image_url"]),
        ("/process-image/", IMAGE | {"image_url": "file:///etc/passwd"}, ["#/image_url"]),
        ("/process-image/", IMAGE | {"image_url": "http://"}, ["#/image_url"]),
        ("/process-image/", IMAGE | {"image_url": "http://a/" + "b" * 5000}, ["#/image_url"]),
        ("/process", {"name": "x"}, ["#/id"]),
        ("/process", [{"id": 1}], ["#"]),
    ],
)
async def test_wrong_shapes_are_422_with_pointers(
    client: httpx.AsyncClient, path: str, body: object, expected: list[str]
) -> None:
    response = await client.post(path, content=json.dumps(body), headers=JSON)
    assert response.status_code == 422
    assert pointers(response) == expected


@pytest.mark.parametrize(
    ("body", "expected"), [('{"id": 1e999}', ["#/id"]), ('{"id": 1, "a": {"b": [1e999]}}', ["#/a"])]
)
async def test_a_number_too_large_is_422(
    client: httpx.AsyncClient, body: str, expected: list[str]
) -> None:
    response = await client.post("/process", content=body, headers=JSON)
    assert response.status_code == 422
    assert pointers(response) == expected


@pytest.mark.parametrize(
    ("query", "pointer"), [("limit=0", "limit"), ("limit=x", "limit"), ("after=-1", "after")]
)
async def test_a_wrong_query_is_422(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    assert pointers(await client.get(f"/users/?{query}")) == [f"#/{pointer}"]


@pytest.mark.parametrize("after", [2**63, 10**30])
async def test_an_id_beyond_range_is_422(client: httpx.AsyncClient, after: int) -> None:
    assert pointers(await client.get(f"/users/?after={after}")) == ["#/after"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "nonsense",
        "application/json; charset=latin-1",
    ],
)
async def test_other_types_and_charsets_are_415(
    client: httpx.AsyncClient, content_type: str
) -> None:
    response = await client.post(
        "/process", content=b'{"id": 1}', headers={"content-type": content_type}
    )
    assert response.status_code == 415
    problem(response)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.a+json"],
)
async def test_json_of_any_type_is_taken(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"content-type": content_type}
    response = await client.post("/process", content=b'{"id": 1}', headers=headers)
    assert response.status_code == 202


async def test_a_body_without_a_type_is_415(client: httpx.AsyncClient) -> None:
    response = await client.post("/process", content=b'{"id": 1}')
    assert response.status_code == 415
    assert "Content-Type: application/json" in str(problem(response)["detail"])


async def test_what_takes_no_body_needs_no_type(client: httpx.AsyncClient) -> None:
    for content in (None, b""):
        assert (await client.post("/action", content=content)).status_code == 202


@pytest.mark.parametrize("path", ["/process", "/action"])
async def test_announced_large_bodies_are_413_everywhere(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.post(path, content=b"x" * (16 * 1024 + 1), headers=JSON)
    assert response.status_code == 413
    problem(response)


@pytest.mark.parametrize("length", ["16385", "0" * 30 + "16385", "9" * 4000, "1048577"])
async def test_an_announced_length_is_refused_unread(
    client: httpx.AsyncClient, length: str
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        yield await asyncio.Event().wait() and b""

    for headers in ({}, {"idempotency-key": "k"}):
        response = await client.post(
            "/process", content=unread(), headers={"content-length": length, **headers}
        )
        assert response.status_code == 413
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k"}])
async def test_an_unannounced_large_body_is_413(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    response = await client.post("/process", content=endless(), headers=JSON | headers)
    assert response.status_code == 413
    assert sent == 17_000
    problem(response)


async def test_a_body_at_the_limit_passes(client: httpx.AsyncClient) -> None:
    body = b'{"id": 1, "a": "' + b"x" * (16 * 1024 - 18) + b'"}'
    assert len(body) == 16 * 1024
    assert (await client.post("/process", content=body, headers=JSON)).status_code == 202


async def test_a_long_content_type_is_415(client: httpx.AsyncClient) -> None:
    for long in ("application/json" + ";" * 200, "application/json" + ';a="' * 10_000):
        response = await client.post(
            "/process", content=b'{"id": 1}', headers={"content-type": long}
        )
        assert response.status_code == 415
        problem(response)


@pytest.mark.parametrize("path", ["/users/", "/tasks", "/tasks/task-1"])
async def test_a_long_query_is_414_unread(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"{path}?" + "a=1&" * 513)).status_code == 414
    assert (await client.get(f"{path}?" + "a=1&" * 512)).status_code == 422


async def test_too_many_fields_are_422(client: httpx.AsyncClient) -> None:
    fields: dict[str, int] = {"id": 1} | {f"{number}": 1 for number in range(1000)}
    response = await client.post("/process", json=fields)
    assert response.status_code == 422
    assert "1000 fields" in str(problem(response)["detail"])
    fields.popitem()
    assert (await client.post("/process", json=fields)).status_code == 202


@pytest.mark.parametrize("host", ["[", "a/b", "?", "\xff"])
async def test_an_invalid_host_changes_no_key(client: httpx.AsyncClient, host: str) -> None:
    key = (b"idempotency-key", b"k")
    answers = [
        await client.post("/action", headers=[key, (b"host", name.encode("latin-1"))])
        for name in ("test", host)
    ]
    assert [each.status_code for each in answers] == [202, 202]
    assert answers[0].headers["task-id"] == answers[1].headers["task-id"]


@pytest.mark.parametrize(
    ("path", "allowed"), [("/users/", {"GET", "HEAD", "POST"}), ("/users/1", {"DELETE"})]
)
async def test_a_405_names_the_right_methods(
    client: httpx.AsyncClient, path: str, allowed: set[str]
) -> None:
    response = await client.put(path)
    assert response.status_code == 405
    assert {each.strip() for each in response.headers["allow"].split(",")} == allowed
    problem(response)


@pytest.mark.parametrize("path", ["/nothing", "/users/1/x", "/%00", "/images", "/test/test"])
async def test_an_unknown_path_is_404(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    problem(response)


async def test_an_answer_names_only_twenty_errors(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/users/", json={str(number): 1 for number in range(1000)})
    assert len(pointers(response)) == 20


async def test_a_bugs_answer_tells_nothing(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_app.tracing.status", lambda: 1 / 0)
    response = await client.get("/health")
    assert response.status_code == 500
    assert "division" not in str(problem(response))
