"""What a person sees of the routes: pages that work, complain of nothing, and call nobody else."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.serving import Server

Serve = Callable[..., Server]
expect.set_options(timeout=60_000)  # a busy machine reads two megabytes of script slowly


@pytest.fixture
def asked(page: Page) -> list[str]:
    """Every URL that the page has asked for."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    return urls


def elsewhere(urls: list[str], server: Server) -> list[str]:
    here = (f"{server.url}/", f"blob:{server.url}/", "data:")
    assert urls
    return [url for url in urls if not url.startswith(here)]


def test_try_it_out_calls_the_service(
    page: Page, complaints: list[str], asked: list[str], serve: Serve
) -> None:
    server = serve(SLEEP_SECONDS="0.1")
    page.goto(f"{server.url}/docs")
    operation = page.locator("#operations-answered_at_once-get_test")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text("task-id: task-")
    assert complaints == []
    assert elsewhere(asked, server) == []


def test_try_it_out_sends_a_body(page: Page, complaints: list[str], serve: Serve) -> None:
    page.goto(f"{serve().url}/docs")
    operation = page.locator("#operations-users-post_users")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response").first
    expect(answer.locator(".response-col_status")).to_contain_text("201")
    expect(answer).to_contain_text("ada@example.com")
    assert complaints == []


def test_redoc_shows_and_finds_routes(
    page: Page, complaints: list[str], asked: list[str], serve: Serve
) -> None:
    server = serve()
    page.goto(f"{server.url}/redoc")
    expect(page.get_by_role("heading", name="Add a user and announce them")).to_be_visible()
    page.get_by_placeholder("Search...").fill("announce")
    expect(page.get_by_role("menuitem").first).to_contain_text("Add a user and announce them")
    assert complaints == []
    assert elsewhere(asked, server) == []


def test_the_index_leads_to_the_pages(
    page: Page, complaints: list[str], asked: list[str], serve: Serve
) -> None:
    server = serve()
    page.goto(server.url)
    for _ in range(6):  # past the way to the content, the name, and the links at the top
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".opblock").first).to_be_visible()
    assert page.url == f"{server.url}/docs"
    assert complaints == []
    assert elsewhere(asked, server) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_index_fits_its_window(
    page: Page, complaints: list[str], serve: Serve, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(serve().url)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 22, 25)"}[scheme]
    assert complaints == []


def test_another_hosts_script_is_refused(page: Page, complaints: list[str], serve: Serve) -> None:
    page.goto(f"{serve().url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'stolen'";
            document.body.append(script);
        }"""
    )
    assert page.title().startswith("Swagger UI")
    assert any("script-src" in each for each in complaints)
