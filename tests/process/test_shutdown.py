"""SIGTERM: what runs gets its time, what does not end is named, nothing holds it up."""

import signal
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.serving import Server

Serve = Callable[..., Server]
BAD = "tests.process.bad_tasks_app:app"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A host and port that accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_idle_services_leave_within_a_second(serve: Serve) -> None:
    server = serve()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.stop() < 1
    assert server.process.returncode == -signal.SIGTERM


def test_a_running_task_gets_its_time(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="1")
    httpx.get(f"{server.url}/test")
    assert server.stop() < 3
    assert "draining: 1 tasks get up to 20 s" in server.log()
    assert "background_sleep_task succeeded" in server.log()
    assert "cuts off" not in server.log()


def test_late_tasks_are_cut_and_named(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="60", DRAIN_SECONDS="1")
    task_id = httpx.get(f"{server.url}/test").headers["task-id"]
    assert 1 <= server.stop() < 3
    assert (
        f"the shutdown cuts off background_sleep_task {task_id}; it is given back, to be run again"
        in server.log()
    )


@pytest.mark.parametrize("bad", ["hangs", "clings", "hangs_in_a_thread", "blocks_when_cancelled"])
def test_hanging_tasks_cannot_hold_the_process(serve: Serve, bad: str) -> None:
    server = serve(app=BAD, DRAIN="0.5")
    assert httpx.get(f"{server.url}/{bad}").text == "ok"
    assert server.stop() < 6
    assert f"{bad} task-" in server.log()


def test_hanging_threads_cannot_hold_ctrl_c(serve: Serve) -> None:
    server = serve(app=BAD, DRAIN="0.5")
    httpx.get(f"{server.url}/hangs_in_a_thread")
    assert server.stop(signal.SIGINT) < 5


def test_hanging_mail_servers_cannot_hold_shutdown(serve: Serve, silent_server: str) -> None:
    server = serve(SMTP_URL=f"smtp://{silent_server}", DRAIN_SECONDS="1")
    httpx.post(f"{server.url}/users/", json={"email": "ada@example.com", "username": "ada"})
    assert server.stop() < 3
    assert "send_welcome_mail task-" in server.log()


def test_a_second_sigterm_changes_nothing(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="1")
    httpx.get(f"{server.url}/test")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("draining")
    assert server.stop() < 3
    assert "background_sleep_task succeeded" in server.log()


def test_draining_refuses_new_connections(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="2")
    url = server.url
    httpx.get(f"{url}/test")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("draining")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
