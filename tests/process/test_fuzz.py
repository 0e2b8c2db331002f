"""`make fuzz` tells a service that holds from one that does not."""

import asyncio
import re
import socket
import subprocess
import sys
import threading

import pytest

from fuzz.cases import Case, Way, make
from fuzz.client import play
from tests.serving import ROOT

CASES = [str(number) for number in range(80)]
ROUTES = ["GET /", "POST /process", "GET /tasks/{id}"]


def described(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.described", "--seed", "1", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def fuzz(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz", "--seed", "1", "--cases", *CASES, *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_case_is_always_the_same() -> None:
    assert make("1", 7, ROUTES) == make("1", 7, ROUTES)
    assert make("1", 7, ROUTES) != make("2", 7, ROUTES)
    assert len({make("1", number, ROUTES).sent for number in range(50)}) > 40


@pytest.mark.parametrize(("way", "size"), [("half closed", 100), ("reset", 2**23)])
def test_a_case_bears_being_cut_off(way: Way, size: int) -> None:
    cut_off = 50
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_all() -> None:
            for _ in range(cut_off):
                server.accept()[0].close()

        closing = threading.Thread(target=close_all, daemon=True)
        closing.start()

        async def play_all() -> None:
            for number in range(cut_off):
                assert await play(server.getsockname()[1], Case(number, way, b"x" * size)) == []

        asyncio.run(play_all())
        closing.join()


def test_a_service_that_holds_passes() -> None:
    done = fuzz()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| tasks accepted \| [1-9]", done.stdout)
    assert "| of them not settled | none |" in done.stdout
    assert re.search(r"\| peak memory \| \d+ MB", done.stdout)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("status", "answered 500: make fuzz SEED=1 CASES="),
        ("stall", "the loop stood still"),
        ("task", "accepted tasks did not settle"),
    ],
)
def test_a_service_that_breaks_fails(fault: str, said: str) -> None:
    done = fuzz("--app", f"tests.process.fragile_app:{fault}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout


def test_answers_that_are_not_as_described_fail() -> None:
    pytest.importorskip("schemathesis", reason="needs requirements-dev.txt")
    done = described("--minutes", "0.1", "--app", "tests.process.fragile_app:undescribed")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed 1, " in done.stdout
    assert "Received: 207" in done.stdout
