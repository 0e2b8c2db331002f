"""docs/testing_tasks.md is true: its example passes, and what it names is there."""

import inspect
import re
from typing import Any

import pytest

from afterwards.testing import TaskKit
from tests import serving

PAGE = (serving.ROOT / "docs" / "testing_tasks.md").read_text()


@pytest.mark.anyio
async def test_the_example_passes() -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "the example"}
    exec(example, names)
    tests = [each for name, each in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        await test()
    assert names["answers"] == []


def test_the_kit_has_what_pages_say() -> None:
    named = {*re.findall(r"kit\.(\w+)", PAGE), *re.findall(r"^- `(\w+)\(", PAGE, re.MULTILINE)} - {
        "TaskKit"
    }
    has = {name for name, _ in inspect.getmembers(TaskKit)} | {"now"}
    assert len(named) >= 6
    assert named <= has
