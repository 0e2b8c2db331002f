"""The pages hang together: links lead somewhere, files exist, the README is short."""

import re
from pathlib import PurePosixPath

import pytest

from tests import pages, serving


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)", pages.text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages.PAGES)
def test_the_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", pages.text_of(page)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = str(PurePosixPath(page).parent / file) if file else page
        assert (serving.ROOT / target).exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_page_is_linked_from_another() -> None:
    linked = {
        PurePosixPath(file).name
        for page in pages.PAGES
        for file in re.findall(r"\]\(([^)#]+)", pages.text_of(page))
    }
    assert {PurePosixPath(page).name for page in pages.PAGES} - linked <= {"README.md"}


def test_the_readme_comes_to_the_point() -> None:
    readme = pages.text_of("README.md")
    assert len(readme.partition("```python")[0].split()) <= 60
    assert len(readme.split()) <= 720


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_file_it_names_exists(page: str) -> None:
    for path in re.findall(r"`([a-z_]+/[\w/]+\.py)`", pages.text_of(page)):
        assert (serving.ROOT / path).exists(), path
