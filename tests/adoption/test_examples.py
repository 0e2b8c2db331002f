"""The examples keep their promise: with the wheel, on both generations of Starlette and FastAPI."""

import http.server
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.adoption.conftest import Environment, clean_environ
from tests.serving import ROOT, Server, until

HANGS = 0  # in place of a status: the hook never answers


class Hook:
    """What the examples call; it answers with the next of `statuses`, and `calls` has what it was told."""

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

    def row(self, id: str) -> tuple[str, int]:
        """Return the task's state and its attempts so far, as the database has them."""
        with closing(sqlite3.connect(self._directory / "tasks.db")) as connection:
            [row] = connection.execute(
                "SELECT state, attempt FROM afterwards_tasks WHERE id = ?", [id]
            )
        return row[0], row[1]

    def close(self) -> None:
        self.server.kill()
        self.hook.close()


@pytest.fixture(params=["fastapi_app", "starlette_app"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["2025", "2026"])
def example(
    request: pytest.FixtureRequest, name: str, environment: Environment, tmp_path: Path
) -> Iterator[Example]:
    example = Example(name, environment(request.param), tmp_path)
    yield example
    example.close()


def test_a_task_survives_kill_9(example: Example) -> None:
    id = example.sign_up("ada", HANGS, 200)
    example.server.kill()
    assert example.row(id)[0] == "running"
    example.start()
    assert example.hook.calls.get(timeout=60) == "ada"
    until(lambda: example.row(id)[0] == "succeeded", 30)


def test_a_task_that_fails_is_retried(example: Example) -> None:
    id = example.sign_up("bob", 500, 500, 200)
    until(lambda: example.row(id) == ("succeeded", 3), 60)


def test_the_fastapi_example_has_twelve_lines() -> None:
    lines = (ROOT / "examples" / "fastapi_app.py").read_text().splitlines()
    assert len([line for line in lines[1:] if line.strip()]) == 12


def test_the_starlette_example_has_a_page(environment: Environment, tmp_path: Path) -> None:
    example = Example("starlette_app", environment("2026"), tmp_path)
    id = example.sign_up("ada", 200)
    page = httpx.get(f"{example.server.url}/tasks/{id}?wait=20", timeout=30).json()
    assert page["state"] == "succeeded"
    example.close()
