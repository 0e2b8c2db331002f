"""What is used of SkyWalking's agent stands in one module, and is as it is said there."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from afterwards.skywalking import agent
from afterwards.skywalking import names as used
from tests.agent_names import missing, names, protocols

ROOT = Path(__file__).parents[2]
# Beside agent.py: what it imports is missed when it is loaded.
MODULES = sorted({*ROOT.glob("afterwards/skywalking/*.py")} - {Path(str(agent.__file__))})


def test_no_agent_name_has_moved() -> None:
    """In a process of its own, because the agent patches what it finds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.agent_names"],
        cwd=ROOT,
        env={**os.environ, "SW_SAMPLE_N_PER_3_SECS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "moved:" in done.stdout.splitlines()[-1:], done.stdout + done.stderr


def test_a_moved_name_is_told() -> None:
    context = SimpleNamespace(
        segment=1, primary_endpoint=2, _correlation=3, _sid=4, stop=5, new_exit_span=6
    )
    assert missing(used.Context, context) == ["Context._nspans"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_private_name_is_listed(path: Path) -> None:
    assert {*_private_names(path.read_text())} <= set[str]().union(*map(names, protocols()))


def test_an_unlisted_private_name_is_seen() -> None:
    assert {*_private_names("self._ours\nspan.context._hidden = core._Agent__queue")} == {
        "_hidden",
        "_Agent__queue",
    }


def _private_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.fullmatch("_(?!_).*", node.attr):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                continue
            yield node.attr
