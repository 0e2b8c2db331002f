"""The browser of these tests is a real one, and tells of what goes wrong in it."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.serving import Server


def test_browser_shows_an_answer(page: Page, serve: Callable[..., Server]) -> None:
    page.goto(f"{serve().url}/test")
    assert page.inner_text("body") == "ok"


def test_complaints_of_a_page_are_heard(page: Page, complaints: list[str]) -> None:
    page.goto("data:text/html,<title>a page</title><script>console.error('alas')</script>")
    assert page.title() == "a page"
    assert complaints == ["alas"]
