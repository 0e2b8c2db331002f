"""`python -m afterwards worker`: runs what others accepted, and ends as it is told."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from afterwards import Afterwards
from tests.process import cli_app
from tests.serving import Server, sql, until
from tests.terminal import command

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Serve = Callable[..., Server]

APP = "tests.process.cli_app:app"


class House:
    """Workers that share a database and a diary."""

    def __init__(self, serve: Serve, database_url: str, directory: Path) -> None:
        self.serve, self.database_url = serve, database_url
        self.diary = directory / "diary"
        self.diary.touch()
        self.variables = {"DATABASE_URL": database_url, "DIARY": str(self.diary)}

    def accept(self, function: Callable[..., Any], *args: Any) -> str:
        return Afterwards(self.database_url).enqueue_sync(function, *args)

    def worker(self, path: str = APP, **more: str) -> Server:
        """Start a worker, and wait until it is ready."""
        words = ["python", "-m", "afterwards", "worker", path]
        worker = self.serve(app="", command=words, **{**self.variables, **more})
        worker.wait_for_log("Ctrl-C ends it")
        return worker

    def until_noted(self, word: str, count: int = 1) -> None:
        until(lambda: self.diary.read_text().count(word) >= count, 30)

    def row(self, id: str) -> Any:
        [row] = sql(self.database_url, "SELECT * FROM afterwards_tasks WHERE id = :id", id=id)
        return row

    def until_state(self, id: str, state: str) -> None:
        until(lambda: self.row(id).state == state, 30)


@pytest.fixture
def house(serve: Serve, database_url: str, tmp_path: Path) -> House:
    return House(serve, database_url, tmp_path)


@pytest.mark.parametrize("name", ["app", "afterwards"])
def test_a_worker_runs_what_others_accepted(house: House, name: str) -> None:
    web = house.serve(app=APP, RUN_TASKS="0", **house.variables)
    id = httpx.post(web.url).headers["task-id"]
    worker = house.worker(f"tests.process.cli_app:{name}", RUN_TASKS="0")
    house.until_state(id, "succeeded")
    assert house.row(id).result == str(worker.pid)


def test_a_killed_workers_task_ends_elsewhere(house: House) -> None:
    id = house.accept(cli_app.ends_the_second_time)
    first = house.worker(DEAD_SECONDS="2")
    house.until_noted("start")
    first.kill()
    house.worker(DEAD_SECONDS="2")
    house.until_state(id, "succeeded")
    assert house.row(id).crashes == 1


def test_sigterm_lets_tasks_end(house: House) -> None:
    id = house.accept(cli_app.notes, 1.0)
    worker = house.worker()
    house.until_noted("start")
    worker.stop(signal.SIGTERM)
    assert worker.process.returncode == 0
    assert "draining: 1 tasks get up to 20 s to end" in worker.log()
    assert "SIGTERM: claims no more tasks" in worker.log()
    assert house.row(id).state == "succeeded"


def test_sigterm_again_changes_nothing(house: House) -> None:
    id = house.accept(cli_app.notes, 2.0)
    worker = house.worker()
    house.until_noted("start")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("draining")
    worker.stop(signal.SIGTERM)
    assert worker.process.returncode == 0
    assert house.row(id).state == "succeeded"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_second_ctrl_c_leaves_at_once(house: House, first: signal.Signals) -> None:
    id = house.accept(cli_app.ends_the_second_time)
    worker = house.worker()
    house.until_noted("start")
    worker.process.send_signal(first)
    worker.wait_for_log("draining")
    assert worker.stop(signal.SIGINT) < 15
    assert worker.process.returncode == 130
    assert (house.row(id).state, house.row(id).attempt) == ("queued", 0)
    house.worker()
    house.until_state(id, "succeeded")
    assert (house.row(id).attempt, house.row(id).crashes) == (1, 0)


def test_late_tasks_are_given_back(house: House) -> None:
    id = house.accept(cli_app.ends_the_second_time)
    worker = house.worker(DRAIN_SECONDS="0.5")
    house.until_noted("start")
    worker.stop(signal.SIGINT)
    assert worker.process.returncode == 0
    assert (house.row(id).state, house.row(id).attempt) == ("queued", 0)


@pytest.mark.parametrize("function", [cli_app.blocks, cli_app.clings])
def test_no_task_can_hold_ctrl_c(house: House, function: Callable[..., Any]) -> None:
    house.accept(function)
    worker = house.worker()
    house.until_noted("start")
    worker.process.send_signal(signal.SIGINT)
    worker.wait_for_log("SIGINT: claims no more")
    assert worker.stop(signal.SIGINT) < 15


def test_a_worker_waits_for_its_database(house: House, tmp_path: Path) -> None:
    away = "postgres://nobody@127.0.0.1:1/none"
    worker = house.worker(DATABASE_URL=away)
    worker.wait_for_log("the database is unavailable")
    worker.stop(signal.SIGTERM)
    assert worker.process.returncode == 0


def test_with_a_broker_workers_are_celerys(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    said = command("worker", APP, BROKER_URL="amqp://guest@127.0.0.1:1//")
    assert said.returncode == 1
    assert "celery -A celery_app worker" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_modules_own_logging_is_kept(serve: Serve, tmp_path: Path) -> None:
    words = ["python", "-m", "afterwards", "worker", "asgi_app:afterwards"]
    url = f"sqlite:///{tmp_path}/service.db"
    worker = serve(app="", command=words, DATABASE_URL=url, LOG_FORMAT="json")
    worker.wait_for_log('"message": "asgi_app:afterwards runs')
    worker.stop()
    assert worker.process.returncode == 0
