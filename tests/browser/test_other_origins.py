"""A page of another origin, in a real browser, can change nothing here and read nothing.

Every attack has its twin: the same script on a page of our own, or of an allowed origin, gets
through, so that none of them fails for a reason of its own.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route

from tests.serving import JSON, Server

Serve = Callable[..., Server]
Rows = Callable[[], list[tuple[str, str]]]

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

NOTHING = "TypeError: Failed to fetch"  # is all that a script hears, sent or not

BEACON = "([url, body]) => navigator.sendBeacon(url, new Blob([body]))"

TASK_ID = "async ([url]) => (await fetch(url)).headers.get('Task-Id')"

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


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[tuple[str, str]]]:
    """List the tasks that there are: names and states."""

    def read() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(tmp_path / "service.db")) as database:
            return database.execute("SELECT name, state FROM afterwards_tasks").fetchall()

    return read


def submitted(page: Page, url: str, type: str, name: str, value: str) -> int:
    """Have the page send a form, and return the status of the answer."""
    with page.expect_response(url) as answer, page.expect_navigation():
        page.evaluate(SUBMIT, [url, type, name, value])
    return answer.value.status


def fetched(page: Page, url: str, **options: Any) -> str:
    """Have the page's script send a request; return what it can read of the answer."""
    told: str = page.evaluate(FETCH, [url, options])
    return told


def own_page(page: Page, server: Server) -> None:
    """Open a page whose origin is the service's."""
    url = f"{server.url}/of-its-own"

    def answer(route: Route) -> None:
        route.fulfill(body="<!doctype html><link rel=icon href=data:,>", content_type="text/html")

    page.route(url, answer)
    page.goto(url)


# As text/plain a form can send any JSON: a name, "=", a value.
FORMS = [
    ("/action", "application/x-www-form-urlencoded", "a", "b"),
    ("/action", "multipart/form-data", "a", "b"),
    ("/complex-action", "text/plain", "a", "b"),
    ("/process", "text/plain", '{"id": 1, "a": "', '"}'),
    ("/users/", "text/plain", '{"email": "a@example.com", "username": "', '"}'),
]


@pytest.mark.parametrize("referrer", ["unsafe-url", "no-referrer"])
def test_a_foreign_form_enqueues_nothing(
    page: Page, other_port: int, service: Server, rows: Rows, referrer: str
) -> None:
    for path, *form in FORMS:
        page.goto(f"http://{FOREIGN}:{other_port}/?{referrer}")
        assert submitted(page, service.url + path, *form) == 403
    assert rows() == []


def test_a_form_of_our_own_does(page: Page, service: Server, rows: Rows) -> None:
    own_page(page, service)
    assert submitted(page, f"{service.url}/action", "text/plain", "a", "b") == 202
    assert len(rows()) == 1


def test_no_form_at_all_sends_json(page: Page, service: Server, rows: Rows) -> None:
    for path, *form in FORMS[3:]:
        own_page(page, service)
        assert submitted(page, service.url + path, *form) == 415
    assert rows() == []


ITEM = '{"id": 1}'

FETCHES: list[dict[str, Any]] = [
    {"mode": "no-cors", "body": ITEM},
    {"mode": "no-cors", "body": ITEM, "credentials": "include"},
    {"mode": "cors", "body": ITEM},
    {"mode": "cors", "body": ITEM, "headers": JSON},
    {"mode": "cors", "headers": {"Authorization": "Bearer x"}},
]


def test_a_foreign_script_enqueues_nothing(evil: Page, service: Server, rows: Rows) -> None:
    for path in ("/process", "/action"):
        for options in FETCHES:
            assert fetched(evil, service.url + path, method="POST", **options) == NOTHING
    evil.evaluate(BEACON, [f"{service.url}/process", ITEM])
    # They came: those that a form could have sent, and a pre-flight for the others.
    for line, count in (
        *(('"POST /process HTTP/1.1" 403', 4), ('"POST /action HTTP/1.1" 403', 3)),
        *(('"OPTIONS /process HTTP/1.1" 204', 2), ('"OPTIONS /action HTTP/1.1" 204', 2)),
    ):
        service.wait_for_log(f"(?s)({line}.*){{{count}}}")
    assert rows() == []


def test_a_script_of_our_own_does(page: Page, service: Server, rows: Rows) -> None:
    own_page(page, service)
    for headers, status in ((JSON, 202), ({}, 415)):
        told = fetched(page, f"{service.url}/process", method="POST", body=ITEM, headers=headers)
        assert told.startswith(f"basic {status} ")
    assert rows() == [("process_item", "queued")]


def test_any_page_can_cause_a_get(evil: Page, service: Server, rows: Rows) -> None:
    # As docs/security.md says; the demo's route enqueues at a GET.
    assert fetched(evil, f"{service.url}/test", mode="no-cors") == NOTHING
    assert rows() == [("background_sleep_task", "queued")]


# --- what is an operator's ---

TASKS = ("/tasks", "/tasks/changes", "/users/", "/tasks/login")


def cancelled(server: Server) -> str:
    """Enqueue a task and cancel it, as somebody on this machine; return its path."""
    path = "/tasks/" + httpx.post(f"{server.url}/action").headers["task-id"]
    assert httpx.delete(server.url + path).status_code == 200
    return path


def test_other_pages_change_no_task(
    page: Page, other_port: int, service: Server, rows: Rows
) -> None:
    # One on this machine is of the same site, which SameSite would let through.
    path = cancelled(service)
    httpx.post(f"{service.url}/action")
    before = rows()
    queued = "/tasks/" + httpx.get(f"{service.url}/tasks").json()["tasks"][0]["id"]
    for host in (FOREIGN, "localhost", "127.0.0.1"):
        for referrer in ("unsafe-url", "no-referrer"):
            page.goto(f"http://{host}:{other_port}/?{referrer}")
            for method, mode in (("POST", "no-cors"), ("POST", "cors"), ("DELETE", "cors")):
                for each in (path + "/retry", queued):
                    told = fetched(page, service.url + each, method=method, mode=mode)
                    assert told == NOTHING
            form = ("text/plain", "a", "b")
            assert submitted(page, f"{service.url}{path}/retry", *form) == 403
    assert rows() == before


def test_our_own_page_retries(page: Page, service: Server, rows: Rows) -> None:
    path = cancelled(service)
    own_page(page, service)
    told = fetched(page, f"{service.url}{path}/retry", method="POST")
    assert told.startswith("basic 202 ")
    assert rows() == [("log_action", "queued")]


def test_other_pages_read_nothing(page: Page, other_port: int, service: Server) -> None:
    cancelled(service)
    for host in (FOREIGN, "localhost", "127.0.0.1"):
        page.goto(f"http://{host}:{other_port}/")
        assert framed(page, page.url) == "evil"
        for path in (*TASKS, "/"):
            assert fetched(page, service.url + path) == NOTHING
            for kind in ("script", "img"):
                assert page.evaluate(LOAD, [kind, service.url + path]) == "refused"
            assert framed(page, service.url + path) == ""


def framed(page: Page, url: str) -> str:
    """Put the address into a frame of the page, and return what is shown in it."""
    with page.expect_event("framenavigated", lambda frame: frame != page.main_frame):
        page.evaluate(LOAD, ["iframe", url])
    shown = page.frames[-1]
    assert shown != page.main_frame
    return "" if shown.url.startswith("chrome-error:") else shown.inner_text("body")


def test_our_own_page_reads(page: Page, service: Server) -> None:
    path = cancelled(service)
    own_page(page, service)
    told = fetched(page, f"{service.url}/tasks")
    assert told.startswith("basic 200 ")
    assert path.removeprefix("/tasks/") in told


# --- a foreign name that leads here ---


REBOUND = "rebound.example"


@pytest.fixture
def rebound(chromium: Browser) -> Iterator[Callable[[str], Page]]:
    """Open an address with a page that may do there what its own site would let it."""
    context = chromium.new_context(bypass_csp=True)

    def open(url: str) -> Page:
        page = context.new_page()
        page.goto(url)
        return page

    yield open
    context.close()


def test_a_rebound_name_leads_nowhere(
    rebound: Callable[[str], Page], serve: Serve, rows: Rows
) -> None:
    service = serve(RUN_TASKS="0", ALLOWED_HOSTS="")  # in development, with nothing set
    path = cancelled(service)
    page = rebound(f"http://{REBOUND}:{service.port}/health")
    assert fetched(page, "/health").startswith("basic 200 ")
    asked = [("GET", each) for each in (*TASKS, "/")] + [("POST", "/action")]
    for method, each in (*asked, ("POST", f"{path}/retry"), ("DELETE", path)):
        assert fetched(page, each, method=method).startswith("basic 421 ")
    assert rows() == [("log_action", "cancelled")]
    page = rebound(f"http://app.localhost:{service.port}/health")
    assert fetched(page, "/users/") == "basic 200 []"


def test_a_rebound_name_is_no_operator(
    rebound: Callable[[str], Page], service: Server, rows: Rows
) -> None:
    path = cancelled(service)
    page = rebound(f"http://{REBOUND}:{service.port}/health")
    assert fetched(page, "/users/") == "basic 200 []"  # any host is allowed here
    reads = [("GET", each) for each in ("/tasks", "/tasks/changes", f"{path}/arguments")]
    for method, each in (*reads, ("POST", f"{path}/retry"), ("DELETE", path)):
        assert fetched(page, each, method=method).startswith("basic 403 ")
    assert rows() == [("log_action", "cancelled")]
    page = rebound(f"http://localhost:{service.port}/health")
    assert fetched(page, "/tasks").startswith("basic 200 ")


# --- with CORS, and with an operator's cookie ---


def test_an_allowed_page_may_enqueue(page: Page, other_port: int, serve: Serve, rows: Rows) -> None:
    service = serve(RUN_TASKS="0", CORS_ORIGINS=f"http://{FOREIGN}:{other_port}")
    asks = {"method": "POST", "body": ITEM, "headers": JSON | {"Idempotency-Key": "k"}}
    for host in (FOREIGN, "else.example"):
        page.goto(f"http://{host}:{other_port}/")
        told = fetched(page, f"{service.url}/process", **asks)
        assert told.startswith("cors 202 ") if host == FOREIGN else told == NOTHING
        if host == FOREIGN:
            assert page.evaluate(TASK_ID, [f"{service.url}/test"]).startswith("task-")
    assert rows() == [("process_item", "queued"), ("background_sleep_task", "queued")]


def test_an_allowed_page_is_no_operator(
    page: Page, other_port: int, serve: Serve, rows: Rows
) -> None:
    service = serve(RUN_TASKS="0", CORS_ORIGINS="*")
    path = cancelled(service)
    for host in (FOREIGN, "127.0.0.1"):
        page.goto(f"http://{host}:{other_port}/")
        for method, each in (("GET", "/tasks"), ("POST", f"{path}/retry"), ("DELETE", path)):
            told = fetched(page, service.url + each, method=method)
            assert told.startswith("cors 403 ")
        assert submitted(page, f"{service.url}{path}/retry", "text/plain", "csrf", "x") == 403
    assert rows() == [("log_action", "cancelled")]


TOKEN = "an-operators-token"


@pytest.mark.parametrize("origins", ["", "*"])
def test_an_operators_cookie_serves_its_own_pages(
    page: Page, other_port: int, serve: Serve, rows: Rows, origins: str
) -> None:
    service = serve(RUN_TASKS="0", ADMIN_TOKEN=TOKEN, CORS_ORIGINS=origins)
    path = "/tasks/" + httpx.post(f"{service.url}/action").headers["task-id"]
    page.goto(f"{service.url}/tasks/login")
    page.fill("input[name=token]", TOKEN)
    with page.expect_navigation():
        page.click("button")
    assert is_open(page, service)
    for host in (FOREIGN, "localhost", "127.0.0.1"):  # the last gets the cookie sent
        page.goto(f"http://{host}:{other_port}/")
        cookies = {"credentials": "include"}
        assert fetched(page, f"{service.url}/tasks", **cookies) == NOTHING
        assert fetched(page, service.url + path, method="DELETE", **cookies) == NOTHING
        for each in ("/retry", ""):
            fetched(page, service.url + path + each, method="POST", mode="no-cors", **cookies)
        assert submitted(page, f"{service.url}{path}/retry", "text/plain", "a", "b") in (401, 403)
    assert rows() == [("log_action", "queued")]
    assert is_open(page, service)  # as before


def is_open(page: Page, service: Server) -> bool:
    """Tell whether the operator's list is shown, and not the login."""
    answer = page.goto(f"{service.url}/tasks")
    return answer is not None and answer.url == f"{service.url}/tasks" and answer.ok


def test_a_picture_is_shown_anywhere(
    evil: Page, complaints: list[str], service: Server, tmp_path: Path
) -> None:
    id = httpx.post(f"{service.url}/action").headers["task-id"]  # without a task it is swept away
    (tmp_path / "images").mkdir(exist_ok=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / f"{id}.png")
    assert evil.evaluate(LOAD, ["img", f"{service.url}/images/{id}"]) == "loaded"
    evil.goto(f"{service.url}/images/{id}")
    assert evil.evaluate("document.images[0].naturalWidth") == 3
    assert complaints == []
