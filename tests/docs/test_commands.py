"""The pages' commands are true: curl gets the answers shown, the library takes the rest."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pages, serving
from web.headers import ALWAYS

CURLS = [page for page in pages.PAGES if pages.commands(page, "curl ")]
LIBRARY = "python -m afterwards "
COMMANDS = {command for page in pages.PAGES for command, _ in pages.commands(page, LIBRARY)}

TOKEN = r"eyJ[\w-]+\.[\w-]+\.[\w-]+"
ID = r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}"
# What differs from run to run, wherever it stands.
VARYING = [
    (ID, "TASK-ID"),
    (TOKEN, "TOKEN"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME"),
    (r'"(queued|running|oldest_waiting|rate|duration)":[\d.]+', r'"\1":N'),
]
# Headers that every answer bears; tests/app/test_door.py looks at them.
IGNORED = ("date:", "content-length:", *(f"{name.decode()}:" for name, _ in ALWAYS))


def _normal(text: str) -> list[str]:
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text)
    return [
        line.rstrip() for line in text.strip().splitlines() if not line.lower().startswith(IGNORED)
    ]


def test_the_examples_are_found() -> None:
    assert {"README.md", "docs/tour.md", "docs/operating.md"} <= set(CURLS)
    assert len(pages.commands("docs/tour.md", "curl ")) >= 16
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("page", CURLS)
def test_every_curl_gets_its_answer(page: str, tmp_path: Path) -> None:
    has_tokens = bool(pages.commands(page, "JWT_SECRET="))
    secret = {"JWT_SECRET": "x" * 32} if has_tokens else {}
    server = serving.start(tmp_path, SLEEP_SECONDS="0.5", WORK_SECONDS="0.5", **secret)
    id = token = ""  # the last that an answer told
    try:
        for command, expected in pages.commands(page, "curl "):
            command = command.replace("http://localhost:8000", server.url)
            command = command.replace("curl ", "curl -sS -m 30 ", 1)
            # No test asks the internet.
            command = command.replace("https://www.python.org/", "http://127.0.0.1:9/")
            answer = _answer(re.sub(TOKEN, token, re.sub(ID, id, command)))
            assert _normal(answer) == _normal(expected), command
            id = (re.findall(ID, answer) or [id])[-1]
            token = (re.findall(TOKEN, answer) or [token])[-1]
    finally:
        server.kill()


def _answer(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_library_takes_each_command(command: str) -> None:
    # The help comes when all before it was understood, and nothing is done.
    words = [*shlex.split(command.removeprefix(LIBRARY)), "--help"]
    called = [sys.executable, "-m", "afterwards", *words]
    done = subprocess.run(called, cwd=serving.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert words[0] in done.stdout
