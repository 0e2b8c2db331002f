"""What stands before the whole service: hosts, origins, and the headers of every answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import asgi_app
from settings import settings
from tests.lifespan import living
from web.headers import ALWAYS, NAMES, OVER_TLS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick")]

Serve = Callable[..., Awaitable[httpx.AsyncClient]]

FRIEND = {"Origin": "https://friend.com"}
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type, idempotency-key, authorization",
}


async def broken(request: Request) -> Response:
    raise ZeroDivisionError


async def page(request: Request) -> Response:
    return Response(
        headers={"Content-Security-Policy": "img-src *", "X-Frame-Options": "SAMEORIGIN"}
    )


@pytest.fixture
async def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Start the service in this process with these settings, and give a client of it."""
    monkeypatch.setattr(settings, "database_url", f"sqlite:///{tmp_path}/service.db")
    async with AsyncExitStack() as opened:

        async def start(url: str = "http://test", **changed: Any) -> httpx.AsyncClient:
            for name, value in changed.items():
                monkeypatch.setattr(settings, name, value)
            app = asgi_app.create_app(settings)
            app.router.routes += [Route("/broken", broken), Route("/page", page)]
            await opened.enter_async_context(living(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url=url)
            return await opened.enter_async_context(client)

        yield start


def fixed(response: httpx.Response) -> dict[str, str]:
    """Return those of our headers that it bears, each of them once."""
    found = {name.decode(): response.headers.get_list(name.decode()) for name in NAMES}
    assert all(len(values) < 2 for values in found.values())
    return {name: values[0] for name, values in found.items() if values}


def text(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


def problem(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    assert fixed(response) == text(ALWAYS)
    return str(response.json()["detail"])


# --- headers ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/test", 200),
        ("POST", "/action", 202),
        ("OPTIONS", "/action", 204),
        ("GET", "/nothing", 404),
        ("PUT", "/action", 405),
        ("POST", "/process", 415),
        ("GET", "/tasks/task-1", 404),
        ("GET", "/broken", 500),
    ],
)
async def test_every_answer_bears_the_headers(
    ask: Serve, method: str, path: str, status: int
) -> None:
    for url, ours in (("http://test", ALWAYS), ("https://test", OVER_TLS)):
        response = await (await ask(url)).request(method, path)
        assert (response.status_code, fixed(response)) == (status, text(ours))


async def test_a_pages_own_headers_are_left(ask: Serve) -> None:
    response = await (await ask()).get("/page")
    own = {"content-security-policy": "img-src *", "x-frame-options": "SAMEORIGIN"}
    assert fixed(response) == text(ALWAYS) | own


async def test_a_picture_may_be_shown_anywhere(ask: Serve) -> None:
    client = await ask()
    id = (await client.post("/action")).headers["task-id"]  # without a task it would be removed
    settings.images_dir.mkdir(exist_ok=True)
    (settings.images_dir / f"{id}.png").write_bytes(b"x" * 200_000)
    response = await client.get(f"/images/{id}")
    assert len(response.content) == 200_000
    own = {name.lower(): value for name, value in asgi_app.OF_PICTURES.items()}
    assert fixed(response) == text(ALWAYS) | own


# --- hosts ---


async def test_any_host_is_answered_at_first(ask: Serve) -> None:
    client = await ask("http://evil.com", allowed_hosts=None, development=False)
    assert (await client.get("/")).status_code == 200


async def test_in_development_this_machine_is(ask: Serve) -> None:
    client = await ask("http://evil.com", allowed_hosts=None, development=True)
    assert (await client.get("/users/")).status_code == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:1", "app.localhost"):
        assert (await client.get("/users/", headers={"Host": host})).status_code == 200


async def test_other_hosts_are_refused(ask: Serve) -> None:
    client = await ask("http://example.com", allowed_hosts="example.com, *.below.com")
    for host in ("example.com", "a.below.com:80"):
        assert (await client.get("/", headers={"Host": host})).status_code == 200
    for method, path in (("GET", "/"), ("POST", "/action"), ("GET", "/tasks"), ("GET", "/x")):
        response = await client.request(method, path, headers={"Host": "evil.com"})
        assert response.status_code == 421
        assert "ALLOWED_HOSTS" in problem(response)
        assert "task-id" not in response.headers


async def test_health_answers_to_any_host(ask: Serve) -> None:
    client = await ask("http://10.1.2.3:8000", allowed_hosts="example.com")
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/")).status_code == 421


# --- origins ---


@pytest.mark.parametrize("path", ["/action", "/users/", "/tasks/task-1/retry"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_other_pages_can_change_nothing(ask: Serve, path: str, method: str) -> None:
    client = await ask()
    for headers in (FRIEND, {"Origin": "null"}, FRIEND | {"Sec-Fetch-Site": "cross-site"}):
        response = await client.request(method, path, headers=headers)
        assert response.status_code == 403
        assert "CORS_ORIGINS" in problem(response)
        assert "task-id" not in response.headers


async def test_our_own_pages_can(ask: Serve) -> None:
    client = await ask()
    for headers in ({"Origin": "http://test"}, FRIEND | {"Sec-Fetch-Site": "same-origin"}):
        assert (await client.post("/action", headers=headers)).status_code == 202
    assert (await client.get("/", headers=FRIEND)).status_code == 200


async def test_a_path_says_what_it_takes(ask: Serve) -> None:
    client = await ask()
    for path, methods in {
        "/users/": {"GET", "HEAD", "POST", "OPTIONS"},
        "/action": {"POST", "OPTIONS"},
        "/tasks/task-1": {"GET", "HEAD", "DELETE", "OPTIONS"},
    }.items():
        response = await client.options(path, headers=FRIEND | PREFLIGHT)
        assert (response.status_code, response.content) == (204, b"")
        assert {*response.headers["allow"].split(", ")} == methods
        # To a browser this is a no.
        assert not [name for name in response.headers if name.startswith("access-control-")]
    assert (await client.options("/nothing")).status_code == 404


async def test_an_allowed_page_is_answered(ask: Serve) -> None:
    client = await ask(cors_origins="https://friend.com")
    response = await client.options("/users/", headers=FRIEND | PREFLIGHT)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://friend.com"
    assert "access-control-allow-credentials" not in response.headers
    assert fixed(response) == text(ALWAYS)
    for method, path, status in (
        ("POST", "/action", 202),
        ("GET", "/nothing", 404),
        ("GET", "/broken", 500),
    ):
        response = await client.request(method, path, headers=FRIEND)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://friend.com"
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"Task-Id", "Location", "Retry-After"} <= {*exposed}
        assert "Origin" in response.headers["vary"]


async def test_other_pages_are_refused_still(ask: Serve) -> None:
    client = await ask(cors_origins="https://friend.com")
    for origin in ("https://evil.com", "https://friend.com.evil.com", "null"):
        headers = {"Origin": origin}
        response = await client.options("/users/", headers=headers | PREFLIGHT)
        assert (response.status_code, problem(response)) == (400, "Disallowed CORS origin.")
        assert "access-control-allow-origin" not in response.headers
        assert (await client.post("/action", headers=headers)).status_code == 403
        assert "access-control-allow-origin" not in (await client.get("/", headers=headers)).headers


async def test_all_pages_may_be_allowed(ask: Serve) -> None:
    client = await ask(cors_origins="*")
    response = await client.post("/action", headers={"Origin": "https://evil.com"})
    assert response.status_code == 202
    assert response.headers["access-control-allow-origin"] == "*"
