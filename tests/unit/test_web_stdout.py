"""No line is lost, torn or overtaken, however many come and however the process ends."""

import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import serving
from web.stdout import AT_ONCE, MOST_WAITING, Gathering

MANY = 5 * AT_ONCE

Tell = Callable[..., None]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Gathering, Path]]:
    """A handler, and the file that it writes to."""
    path = tmp_path / "log"
    with path.open("w") as stream:
        handler = Gathering(stream)
        yield handler, path
        handler.close()


def tell(handler: Gathering, text: str, level: int = logging.INFO, name: str = "tasks") -> None:
    handler.handle(logging.LogRecord(name, level, "", 0, text, (), None))


def tell_many(handler: Gathering, prefix: str = "", count: int = MANY) -> list[str]:
    lines = [f"{prefix}{number}" for number in range(count)]
    for line in lines:
        tell(handler, line)
    return lines


def test_waiting_lines_come_by_themselves(told: tuple[Gathering, Path]) -> None:
    handler, path = told
    lines = tell_many(handler)
    serving.until(lambda: path.read_text().splitlines() == lines, 20)


def test_few_lines_are_written_at_once(told: tuple[Gathering, Path]) -> None:
    handler, path = told
    lines = tell_many(handler, count=AT_ONCE)
    assert path.read_text().splitlines() == lines
    assert handler._thread is None


@pytest.mark.parametrize(
    ("level", "name"), [(logging.WARNING, "tasks"), (logging.INFO, "uvicorn.error")]
)
def test_lines_that_count_never_wait(told: tuple[Gathering, Path], level: int, name: str) -> None:
    handler, path = told
    lines = tell_many(handler)
    tell(handler, "the last", level, name)
    assert path.read_text().splitlines() == [*lines, "the last"]


def test_each_threads_lines_keep_their_order(told: tuple[Gathering, Path]) -> None:
    handler, path = told
    threads = [threading.Thread(target=tell_many, args=(handler, f"{of} ")) for of in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    written = path.read_text().splitlines()
    assert len(written) == len(threads) * MANY
    for of in range(len(threads)):
        own = [line for line in written if line.startswith(f"{of} ")]
        assert own == [f"{of} {number}" for number in range(MANY)]


def test_lines_of_several_lines_stay_whole(told: tuple[Gathering, Path]) -> None:
    handler, path = told
    others = threading.Thread(target=tell_many, args=(handler,))
    others.start()
    for _ in range(MANY):
        tell(handler, "first\n    second\n    third", logging.ERROR)
    others.join()
    assert path.read_text().count("first\n    second\n    third\n") == MANY


def test_no_more_than_so_many_wait(told: tuple[Gathering, Path]) -> None:
    handler, path = told
    handler._is_waiting.set()  # as if the thread were at it for long
    lines = tell_many(handler, count=MOST_WAITING - 1)
    assert path.read_text() == ""
    tell(handler, "one more")
    assert path.read_text().splitlines() == [*lines, "one more"]


def test_a_pipe_that_nobody_reads_loses_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as stream:
        handler = Gathering(stream)
        padding = "x" * 100
        writer = threading.Thread(target=tell_many, args=(handler, padding, 3 * MOST_WAITING))
        writer.start()
        serving.until(lambda: select.select([], [stream], [], 0)[1] == [], 60)
        assert writer.is_alive()
        assert len(handler._lines) <= MOST_WAITING + 1
        written = [reader.readline() for _ in range(3 * MOST_WAITING)]
        writer.join(20)
    assert written == [f"{padding}{number}\n" for number in range(3 * MOST_WAITING)]


def test_a_full_pipe_that_refuses_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as stream:
        handler = Gathering(stream)
        text = "x" * 1_000_000
        writer = threading.Thread(target=tell, args=(handler, text, logging.ERROR))
        writer.start()
        assert reader.readline() == text + "\n"
        writer.join(20)


def test_what_cannot_be_written_is_dropped(
    told: tuple[Gathering, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    handler, _ = told
    handler._stream.close()
    tell(handler, "lost", logging.ERROR)
    assert "closed file" in capfd.readouterr().err
    assert not handler._lines


def run(end: str) -> str:
    """Return what a process writes that tells many lines, and ends so."""
    begun = (
        "import logging, os, sys\n"
        "from web import logs\n"
        "logs.configure('INFO', 'text', str, str)\n"
        "log = logging.getLogger('tasks')\n"
        f"for number in range({MANY}): log.info('line %d.', number)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", begun + end],
        cwd=serving.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    return ran.stdout


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(3)",
        "raise ValueError",
        "raise KeyboardInterrupt",
        "log.critical('ends'); os._exit(1)",
        "import atexit; atexit.register(log.info, 'at the end')",
    ],
)
def test_no_end_loses_a_line(end: str) -> None:
    assert run(end).count(" line ") == MANY


def test_children_tell_their_own_lines_only() -> None:
    written = run(
        "if not os.fork():\n"
        "    log.info('from the child')\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )  # fmt: skip
    assert [written.count(f" line {number}.") for number in range(MANY)] == [1] * MANY
    assert written.count("from the child") == 1
