"""The examples are true: with the wheel, on both generations of Starlette and FastAPI."""

import http.server
import queue
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.adoption.conftest import Environment, clean_environ, run
from tests.serving import ROOT, Server, until

HANGS = 0  # in place of a status: the hook never answers


class Hook:
    """What the examples call: it answers with the next of `statuses`, and keeps the `calls`."""

    def __init__(self) -> None:
        self.statuses: queue.Queue[int] = queue.Queue()
        self.calls: queue.Queue[str] = queue.Queue()
        self._is_over = threading.Event()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.calls.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status = hook.statuses.get()
                if status == HANGS:
                    hook._is_over.wait()
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()


class Example:
    """A copy of an example that calls a hook of ours, in an environment that has only the wheel."""

    def __init__(self, name: str, programs: Path, directory: Path) -> None:
        self.hook = Hook()
        text = (ROOT / "examples" / f"{name}.py").read_text()
        assert "https://example.com/hook" in text
        (directory / f"{name}.py").write_text(
            text.replace("https://example.com/hook", self.hook.url)
        )
        self._command = [str(programs / "uvicorn"), f"{name}:app", "--port", "0"]
        self._directory = directory
        self.start()

    def start(self) -> None:
        environ = clean_environ() | {"PYTHONUNBUFFERED": "1"}
        self.server = Server(self._command, environ, self._directory)

    def sign_up(self, name: str, *statuses: int) -> str:
        """Sign up, let the hook answer like this, and return the task's id once it is called."""
        for status in statuses:
            self.hook.statuses.put(status)
        answer = httpx.post(f"{self.server.url}/users/{name}", timeout=30)
        assert answer.status_code == 202
        assert self.hook.calls.get(timeout=30) == name
        return str(answer.headers["task-id"])

    def has(self, id: str, state: str, attempt: int) -> bool:
        """Tell whether the database has the task in this state, after so many attempts."""
        with closing(sqlite3.connect(self._directory / "tasks.db")) as connection:
            query = "SELECT state, attempt FROM afterwards_tasks WHERE id = ?"
            return connection.execute(query, [id]).fetchall() == [(state, attempt)]

    def close(self) -> None:
        self.server.kill()
        self.hook.close()


@pytest.fixture(scope="module")
def examples(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Example]]:
    """Serve each example on each generation, side by side: a crash is noticed after ten seconds."""
    kinds = [(name, year) for name in ("fastapi_app", "starlette_app") for year in ("2025", "2026")]
    with ExitStack() as stack:
        running = []
        for name, year in kinds:
            running.append(
                Example(name, environment(year), tmp_path_factory.mktemp(f"{name}-{year}"))
            )
            stack.callback(running[-1].close)
        yield running


def test_tasks_that_fail_are_retried(examples: list[Example]) -> None:
    ids = [example.sign_up("bob", 500, 500, 200) for example in examples]
    for example, id in zip(examples, ids, strict=True):
        assert [example.hook.calls.get(timeout=60) for _ in range(2)] == ["bob", "bob"]
        until(partial(example.has, id, "succeeded", attempt=3), 60)


def test_tasks_survive_kill_9(examples: list[Example]) -> None:
    ids = [example.sign_up("ada", HANGS, 200) for example in examples]
    for example, id in zip(examples, ids, strict=True):
        example.server.kill()
        assert example.has(id, "running", attempt=1)
        example.start()
    for example, id in zip(examples, ids, strict=True):
        assert example.hook.calls.get(timeout=60) == "ada"
        until(partial(example.has, id, "succeeded", attempt=1), 30)


def test_the_starlette_example_has_a_page(examples: list[Example]) -> None:
    id = examples[-1].sign_up("eve", 200)
    page = httpx.get(f"{examples[-1].server.url}/tasks/{id}?wait=20", timeout=30)
    assert page.json()["state"] == "succeeded"


def test_the_fastapi_example_has_twelve_lines() -> None:
    lines = (ROOT / "examples" / "fastapi_app.py").read_text().splitlines()
    assert len([line for line in lines[1:] if line.strip()]) == 12


@pytest.mark.parametrize("year", ["2025", "2026"])
def test_install_sees_every_background(environment: Environment, tmp_path: Path, year: str) -> None:
    shutil.copy(ROOT / "tests" / "adoption" / "matrix.py", tmp_path)
    told = run(environment(year) / "python", "matrix.py", directory=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    assert not told.stderr  # nor does anything warn
    assert told.stdout.count("\nok ") > 20
