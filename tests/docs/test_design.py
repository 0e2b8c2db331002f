"""docs/design.md draws the house that stands: every module, and every request."""

import re
from pathlib import Path

import pytest

from asgi_app import app
from tests import pages, serving
from web.openapi import operations_of

DESIGN = pages.text_of("docs/design.md")
TREE = DESIGN.partition("## The house")[2].partition("```")[2].partition("```")[0]
DRAWN = {*re.findall(r"\w+\.py", TREE)}


def _modules() -> set[str]:
    rooms = (serving.ROOT / room for room in (".", "afterwards", "settings", "web"))
    return {path.name for room in rooms for path in room.glob("*.py")}


@pytest.mark.parametrize("module", sorted(_modules()))
def test_the_tree_has_every_module(module: str) -> None:
    assert module in DRAWN


def test_the_tree_has_no_module_that_is_gone() -> None:
    assert {name for name in DRAWN if not [*Path(serving.ROOT).rglob(name)]} == set()


def test_the_table_has_the_services_requests() -> None:
    table = DESIGN.partition("## What is asked over HTTP")[2].partition("\n## ")[0]
    asked = re.findall(r"`((?:GET|POST|DELETE) [^`]+)`", table)
    assert {*asked} == {*operations_of(app.routes)}
    assert len(asked) == len({*asked})
