"""The README is true: its curls answer what it says, and its table holds every setting."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from tests import serving

README = (serving.ROOT / "README.md").read_text()
CONSOLES = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
EXAMPLES = re.findall(r"^\$ (curl [^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", "".join(CONSOLES), re.MULTILINE)

# What differs from run to run, wherever it stands.
VARYING = [
    (r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}", "TASK-ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r'"(queued|running|oldest_waiting|rate|duration)":[\d.]+', r'"\1":N'),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = serving.start(tmp_path_factory.mktemp("readme"))
    yield server.url
    server.kill()


def _normal(text: str) -> list[str]:
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text)
    ignored = ("date:", "server:", "content-length:")
    return [
        line.rstrip() for line in text.strip().splitlines() if not line.lower().startswith(ignored)
    ]


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) >= 12


def test_every_curl_answers_what_the_readme_says(url: str) -> None:
    for command, expected in EXAMPLES:
        command = command.replace("http://localhost:8000", url).replace(
            "curl ", "curl -sS -m 20 ", 1
        )
        command = command.replace(
            "https://www.python.org/", "http://127.0.0.1:9/"
        )  # no test asks the internet
        answer = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert _normal(answer) == _normal(expected), command


def _table() -> dict[str, str]:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| (?:`([^`]*)`)? *\|", README, re.MULTILINE)
    return {name: default for names, default in rows for name in re.findall("[A-Z_]+", names)}


def test_every_setting_is_in_the_table_and_no_other() -> None:
    assert _table().keys() == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_tables_default_is_the_settings(name: str) -> None:
    default: Any = Settings.model_fields[name].default
    shown = (
        ""
        if default is None
        else json.dumps(default)
        if isinstance(default, bool)
        else f"{default}"
    )
    written = _table()[name.upper()]
    assert written in {shown, shown.removesuffix(".0"), {"false": "0", "true": "1"}.get(shown)}


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (serving.ROOT / Path(target)).exists(), target
