"""A page of another origin, in a real browser, can change nothing here and read nothing.

Every attack has its twin: the same script on a page of our own, or of an allowed origin, gets
through, so that none of them fails for a reason of its own.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import Error, Page, Route

from tests.serving import JSON, Server, sql

Serve = Callable[..., Server]

# The browser takes any name for this machine.
FOREIGN = "evil.example"

FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        return `${answer.type} ${answer.status} ${await answer.text()}`;
    } catch (error) { return `${error}`; }
}"""

SUBMIT = """([url, type, name, value]) => {
    const form = document.createElement("form");
    [form.method, form.action, form.enctype] = ["POST", url, type];
    const field = document.createElement("input");
    [field.name, field.value] = [name, value];
    form.append(field);
    document.body.append(form);
    form.submit();
}"""

LOAD = """([kind, url]) => new Promise(resolve => {
    const element = document.createElement(kind);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("refused");
    element.src = url;
    document.body.append(element);
})"""


class Pages(BaseHTTPRequestHandler):
    """Serves one page, which says to others no more of itself than its query asks for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Referrer-Policy", self.path.partition("?")[2] or "unsafe-url")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><link rel=icon href=data:,><p>evil")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other_port() -> Iterator[int]:
    """A site of somebody else's; the port of it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def service(serve: Serve) -> Server:
    """The service as `make run` starts it, but that no task runs."""
    return serve(DEVELOPMENT="1", RUN_TASKS="0")


@pytest.fixture
def evil(page: Page, other_port: int) -> Page:
    """The other site's page, open."""
    page.goto(f"http://{FOREIGN}:{other_port}/")
    return page


def rows(server: Server, tmp_path: Any) -> list[tuple[str, str]]:
    """List the tasks that there are: ids and states."""
    found = sql(f"sqlite:///{tmp_path}/service.db", "SELECT id, state FROM tasks")
    return [(row.id, row.state) for row in found]


def submitted(page: Page, url: str, type: str, name: str, value: str) -> int:
    """Have the page send a form, and return the status of the answer."""
    with page.expect_response(url) as answer, page.expect_navigation():
        page.evaluate(SUBMIT, [url, type, name, value])
    return answer.value.status


def fetched(page: Page, url: str, **options: Any) -> str:
    """Have the page's script send a request; return what it can read of the answer."""
    told: str = page.evaluate(FETCH, [url, options])
    return told


def own_page(page: Page, server: Server, host: str = "127.0.0.1") -> Page:
    """Open a page whose origin is the service's, under that name."""
    url = f"http://{host}:{server.port}/of-its-own"

    def answer(route: Route) -> None:
        route.fulfill(body="<!doctype html><link rel=icon href=data:,>", content_type="text/html")

    page.route(url, answer)
    page.goto(url)
    return page


# As text/plain a form can send any JSON: what is before its "=" is the name, what is after, the value.
FORMS = [
    ("/action", "application/x-www-form-urlencoded", "a", "b"),
    ("/action", "multipart/form-data", "a", "b"),
    ("/complex-action", "text/plain", "a", "b"),
    ("/process", "text/plain", '{"id": 1, "a": "', '"}'),
    ("/users/", "text/plain", '{"email": "a@example.com", "username": "', '"}'),
]


@pytest.mark.parametrize("referrer", ["unsafe-url", "no-referrer"])
def test_a_foreign_form_enqueues_nothing(
    page: Page, other_port: int, service: Server, tmp_path: Any, referrer: str
) -> None:
    for path, *form in FORMS:
        page.goto(f"http://{FOREIGN}:{other_port}/?{referrer}")
        assert submitted(page, service.url + path, *form) == 403
    assert rows(service, tmp_path) == []


def test_a_form_of_our_own_does(page: Page, service: Server, tmp_path: Any) -> None:
    own_page(page, service)
    assert submitted(page, f"{service.url}/action", "text/plain", "a", "b") == 202
    assert len(rows(service, tmp_path)) == 1


def test_no_form_at_all_sends_json(page: Page, service: Server, tmp_path: Any) -> None:
    for path, *form in FORMS[3:]:
        own_page(page, service)
        assert submitted(page, service.url + path, *form) == 415
    assert rows(service, tmp_path) == []


ITEM = '{"id": 1}'

FETCHES: list[dict[str, Any]] = [
    {"mode": "no-cors", "body": ITEM},
    {"mode": "no-cors", "body": ITEM, "credentials": "include"},
    {"mode": "cors", "body": ITEM},
    {"mode": "cors", "body": ITEM, "headers": JSON},
    {"mode": "cors", "headers": {"Authorization": "Bearer x"}},
]


def test_a_foreign_script_enqueues_nothing(evil: Page, service: Server, tmp_path: Any) -> None:
    for path in ("/process", "/action"):
        for options in FETCHES:
            told = fetched(evil, service.url + path, method="POST", **options)
            expected = "opaque 0 " if options["mode"] == "no-cors" else "TypeError: Failed to fetch"
            assert told == expected
    evil.evaluate(
        "([url, body]) => navigator.sendBeacon(url, new Blob([body]))",
        [f"{service.url}/process", ITEM],
    )
    # After it, on the same connection or not: what a beacon sends comes first.
    assert fetched(evil, f"{service.url}/test", mode="no-cors") == "opaque 0 "
    assert [id for id, _ in rows(service, tmp_path)] == []
