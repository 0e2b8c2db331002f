"""Ctrl-C in a terminal lets tasks end; a server that reloads waits for none."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.serving import ROOT, Server, sql

Serve = Callable[..., Server]

APP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from asgi_app import app
"""


def sleeping(server: Server) -> str:
    """Have a task sleep; return its id."""
    task_id: str = httpx.get(f"{server.url}/test").headers["task-id"]
    server.wait_for_log("sleeping for")
    return task_id


def states(tmp_path: Path, task_id: str) -> list[tuple[str, int, object]]:
    row = f"SELECT state, attempt, worker FROM tasks WHERE id = '{task_id}'"
    return [tuple(each) for each in sql(f"sqlite:///{tmp_path}/service.db", row)]


def test_second_ctrl_c_gives_back_immediately(serve: Serve, tmp_path: Path) -> None:
    server = serve(SLEEP_SECONDS="60")
    task_id = sleeping(server)
    server.process.send_signal(signal.SIGINT)
    server.wait_for_log("draining: 1 tasks get up to 20 s to end")
    assert server.stop(signal.SIGINT) < 5
    assert f"{task_id}; it is given back, to be run again" in server.log()
    assert states(tmp_path, task_id) == [("queued", 0, None)]


def test_one_ctrl_c_tells_its_wait(serve: Serve, tmp_path: Path) -> None:
    server = serve(SLEEP_SECONDS="8")
    task_id = sleeping(server)
    assert server.stop(signal.SIGINT) > 4
    assert "draining: 1 tasks have 15 s left" in server.log()
    assert [state for state, *_ in states(tmp_path, task_id)] == ["succeeded"]


def test_a_second_sigterm_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(SLEEP_SECONDS="2")
    task_id = sleeping(server)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("draining")
    server.stop()
    assert [state for state, *_ in states(tmp_path, task_id)] == ["succeeded"]


def test_interrupting_requests_twice_gives_tasks_back(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        SLEEP_SECONDS="60", WORK_SECONDS="60", args=["--timeout-graceful-shutdown", "60"]
    )
    task_id = sleeping(server)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /sync-task/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        server.process.send_signal(signal.SIGINT)
        server.wait_for_log("Waiting for connections to close")
        assert server.stop(signal.SIGINT) < 5
    assert states(tmp_path, task_id) == [("queued", 0, None)]


def test_a_reload_waits_for_no_task(serve: Serve, tmp_path: Path) -> None:
    module = tmp_path / "reloaded.py"
    module.write_text(APP)
    server = serve(
        app="reloaded:app",
        args=["--reload", "--reload-dir", str(tmp_path), "--app-dir", str(tmp_path)],
        SLEEP_SECONDS="60",
    )
    server.wait_for_log("Application startup complete")
    task_id = sleeping(server)
    changed = time.monotonic()
    module.write_text(APP + "# changed\n")
    server.wait_for_log("Reloading")
    server.wait_for_log(
        f"(?s){task_id}; it is given back.*background_sleep_task started.*{task_id}"
    )
    assert time.monotonic() - changed < 15
