"""An operator logs in with a real browser, and no page of another port has a part in it."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from playwright.sync_api import Page

from tests.serving import Server

TOKEN = "a secret of some length"


def log_in(page: Page, url: str) -> None:
    page.goto(f"{url}/tasks/login")
    page.fill("#token", TOKEN)
    page.click("button")
    page.wait_for_selector("text=You are signed in as")


def test_operator_logs_in_and_out(
    page: Page, serve: Callable[..., Server], complaints: list[str]
) -> None:
    url = serve(ADMIN_TOKEN=TOKEN).url.replace("127.0.0.1", "operated.test")
    page.goto(f"{url}/tasks?limit=7")
    assert page.title() == "Sign in"
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/tasks?limit=7")
    assert page.inner_text("body") == '{"tasks":[],"next":null}'
    page.goto(f"{url}/tasks/logout")
    page.click("button")
    page.wait_for_selector("#token")
    page.goto(f"{url}/tasks")
    assert page.title() == "Sign in"
    # The list is bare JSON, for which browsers ask for an icon.
    assert not [each for each in complaints if "404" not in each]


def test_a_wrong_token_is_told(page: Page, serve: Callable[..., Server]) -> None:
    page.goto(f"{serve(ADMIN_TOKEN=TOKEN).url}/tasks/login")
    page.fill("#token", "guessed")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "no operator's token" in page.inner_text("[role=alert]")
    assert page.context.cookies() == []


def test_scripts_do_not_see_the_cookie(page: Page, serve: Callable[..., Server]) -> None:
    log_in(page, serve(ADMIN_TOKEN=TOKEN).url)
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""


def test_another_sites_link_needs_no_second_login(
    page: Page, serve: Callable[..., Server], other_port: str
) -> None:
    url = serve(ADMIN_TOKEN=TOKEN).url.replace("127.0.0.1", "localhost")
    log_in(page, url)
    page.goto(other_port.replace("127.0.0.1", "elsewhere.test"))
    page.evaluate("url => location.assign(url)", f"{url}/tasks?limit=7")
    page.wait_for_url(f"{url}/tasks?limit=7")
    assert page.inner_text("body") == '{"tasks":[],"next":null}'


@pytest.fixture
def other_port() -> Iterator[str]:
    """The URL of a page on another port: to a browser another origin, but the same site."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title>")

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_port_retries_and_cancels_nothing(
    page: Page, serve: Callable[..., Server], other_port: str
) -> None:
    server = serve(ADMIN_TOKEN=TOKEN)
    id = httpx.get(f"{server.url}/test").headers["task-id"]
    log_in(page, server.url)
    page.goto(other_port)
    for method, path in (("POST", f"{id}/retry"), ("DELETE", id), ("POST", "logout")):
        page.evaluate(
            "([url, method]) => fetch(url, {method, credentials: 'include', mode:"
            " method == 'POST' ? 'no-cors' : 'cors'}).catch(() => null)",
            [f"{server.url}/tasks/{path}", method],
        )
    with page.expect_navigation():
        page.evaluate(
            """url => {
                const form = document.createElement('form')
                Object.assign(form, {method: 'post', action: url})
                document.body.append(form)
                form.submit()
            }""",
            f"{server.url}/tasks/{id}/retry",
        )
    assert '"status":403' in page.inner_text("body")
    changes = httpx.get(
        f"{server.url}/tasks/changes", headers={"Authorization": f"Bearer {TOKEN}"}
    ).json()
    assert changes["changes"] == []
    page.goto(f"{server.url}/tasks/{id}")
    assert '"state":"running"' in page.inner_text("body")
    page.goto(f"{server.url}/tasks/login")
    assert page.title() == "Signed in"
