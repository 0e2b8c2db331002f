"""What a browser gets: pages that load nothing from elsewhere, and JSON for everybody else."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from web import pages
from web.accept import MAX_ACCEPT, prefers_html

pytestmark = pytest.mark.anyio
of_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        (CHROMIUM, True),
        ("text/html", True),
        ("TEXT/HTML; q=0.5", True),
        ("text/*", True),
        ("text/html;q=0.9, application/json;q=0.8", True),
        ("application/*;q=0.1, text/html;q=0.2", True),
        ("*/*;q=0.1, text/html", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=0.8, */*", False),
        ("text/html;q=0.8, application/*;q=0.9", False),
        ("text/*, text/html;q=0", False),
        ("text/html;q=nan", False),
        ("text/html;q=7", False),
        ("text/html;q=x", False),
        ("text/html," * MAX_ACCEPT, False),
        (",;=q,;q=", False),
    ],
)
def test_accept_decides_by_its_weights(accept: str, is_html: bool) -> None:
    headers = [(b"accept", accept.encode())]
    assert prefers_html(Request({"type": "http", "headers": headers})) is is_html


def test_several_accept_headers_are_one() -> None:
    headers = [(b"accept", b"application/json;q=0.1"), (b"accept", b"text/html")]
    assert prefers_html(Request({"type": "http", "headers": headers}))
    assert not prefers_html(Request({"type": "http", "headers": []}))


@of_one_database
async def test_the_index_is_for_both(client: httpx.AsyncClient) -> None:
    page = await client.get("/", headers={"Accept": CHROMIUM})
    json = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert json.headers["content-type"] == "application/json"
    assert page.headers["vary"] == json.headers["vary"] == "Accept"
    for path in ("/docs", "/redoc", "/openapi.json", "/tasks", "/health"):
        assert f'href="{path}"' in page.text
    assert "curl -i http://localhost/test" in page.text


@of_one_database
async def test_a_strange_host_writes_no_html(client: httpx.AsyncClient) -> None:
    headers = {"Accept": "text/html", "Host": "<script>alert('1')</script>"}
    page = await client.get("/", headers=headers)
    assert "<script" not in page.text
    assert "'1'" not in page.text


@of_one_database
@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/docs/"])
async def test_pages_load_from_here_alone(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path, headers={"Accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:"} & {*policy.split()}
    assert "://" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


@of_one_database
async def test_pages_know_where_they_are_mounted(app: Starlette) -> None:
    transport = httpx.ASGITransport(app, root_path="/service")
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost/service"
    ) as client:
        page = await client.get("/docs")
        assert 'data-document="/service/openapi.json"' in page.text
        assert (await client.get("/static/docs.js")).status_code == 200


@of_one_database
@pytest.mark.parametrize(
    "path", ["/openapi.json", "/static/redoc.standalone.js", "/static/page.css"]
)
async def test_what_a_client_has_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    first = await client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await client.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.content) == (200, first.content)


@of_one_database
async def test_no_file_elsewhere_is_static(client: httpx.AsyncClient) -> None:
    for name in ("..%2fpages.py", "%2e%2e%2fpages.py", "nothing", "%00", "a" * 3000):
        response = await client.get(f"/static/{name}")
        assert response.status_code == 404, name
        assert response.headers["content-type"] == "application/problem+json"
    assert (await client.get("/static/docs.js")).status_code == 200


def test_redoc_has_one_foreign_mark() -> None:
    path, _ = pages.FILES.lookup_path("redoc.standalone.js")
    with open(path, "rb") as file:
        assert file.read().count(pages.MARK) == 1
    assert pages.MARK not in pages._redoc()._body
