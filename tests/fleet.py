"""A fleet as in production: web processes, a broker, workers, and one database for all."""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers import SERVERS, Broker
from tests.diary import by_task, runs
from tests.serving import Server, sql, until

# For what does not depend on the kind of broker or database: one of the two fleets is enough.
EVERY_BROKER = pytest.mark.parametrize(
    "fleet", ["rabbitmq and postgres", "redis and sqlite", "sqs and sqlite"], indirect=True
)
NO_SERVER = pytest.mark.parametrize("fleet", ["redis and sqlite"], indirect=True)
WEB, WORKER = "tests.process.fleet_app:app", "tests.process.fleet_worker"


def needs(kind: str) -> None:
    """Skip the test where the broker's server or Celery is not installed; CI installs them."""
    if not SERVERS[kind].exists():
        how = (
            "pip install -r requirements-dev.txt"
            if kind == "sqs"
            else f"apt-get install {kind}-server"
        )
        pytest.skip(f"no {kind} server is installed: {how}")
    if not find_spec("celery"):
        pytest.skip("Celery is not installed: pip install -r requirements-celery.txt")


class Fleet:
    """Starts what a test asks for, each process with the same variables."""

    def __init__(
        self, serve: Callable[..., Server], broker: Broker, database_url: str, directory: Path
    ) -> None:
        self.broker = broker
        self.database_url = database_url
        self.diary = directory / "diary"
        self._serve = serve
        self._workers = 0
        self.variables = {
            "DATABASE_URL": database_url,
            "DIARY": str(self.diary),
            "QUEUE": f"tasks-{directory.name}",
            "PUBLISH_AGAIN_SECONDS": "1",
            "DEAD_SECONDS": "2",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def web(self, **more: str) -> Server:
        return self._serve(
            app=WEB, **{**self.variables, "CELERY_BROKER_URL": self.broker.url, **more}
        )

    def alone(self, **more: str) -> Server:
        """Start a web process that knows no broker."""
        return self._serve(app=WEB, **self.variables, **more)

    def worker(self, concurrency: int = 2, args: Sequence[str] = (), **more: str) -> Server:
        self._workers += 1
        worker = self._serve(
            app="",
            command=["celery", "-A", WORKER, "worker"],
            args=[
                *(
                    "--concurrency",
                    str(concurrency),
                    "--hostname",
                    f"worker{self._workers}@{self.diary.parent.name}",
                ),
                *("--without-mingle", "--without-gossip", *args),
            ],
            **{
                **self.variables,
                "CELERY_BROKER_URL": self.broker.url,
                "REMAP_SIGTERM": "SIGQUIT",
                **more,
            },
        )
        worker.wait_for_log(r"celery@|ready\.", 40)
        return worker

    def control(self, *words: str, worker: int = 1) -> str:
        """Say something to a worker as its operator would, and return the answer."""
        command = [
            "celery",
            "-A",
            WORKER,
            *words,
            "--destination",
            f"worker{worker}@{self.diary.parent.name}",
        ]
        said = self._serve(
            app="", command=command, **self.variables, CELERY_BROKER_URL=self.broker.url
        )
        said.process.wait(30)
        said.stop()
        return said.log()

    def send(self, name: str, id: str) -> None:
        """Tell the workers of a task, as the web process does."""
        from celery import Celery  # may be missing where the tests are skipped

        with Celery(broker=self.broker.url, set_as_current=False) as app:
            app.send_task(name, args=[id], task_id=id, queue=self.variables["QUEUE"])

    def rows(self, accepted: Sequence[str]) -> dict[str, Any]:
        every = {row.id: row for row in sql(self.database_url, "SELECT * FROM tasks")}
        return {id: every[id] for id in accepted}

    def all_succeed(self, accepted: Sequence[str], seconds: float) -> None:
        assert accepted
        assert len(set(accepted)) == len(accepted)

        deadline = time.monotonic() + seconds
        while left := {
            id: row for id, row in self.rows(accepted).items() if row.state != "succeeded"
        }:
            assert time.monotonic() < deadline, (
                f"{len(left)} of {len(accepted)} did not succeed: {[*left.values()][:5]}"
            )
            time.sleep(0.1)

    def each_ran_once(self, accepted: Sequence[str]) -> None:
        counts = {id: len(mine) for id, mine in by_task(runs(self.diary)).items()}
        assert counts == dict.fromkeys(accepted, 1)


def posted(url: str, seconds: float = 0.0, name: str = "keeps_a_diary") -> str:
    return str(httpx.post(f"{url}/do/{name}", json={"seconds": seconds}).headers["task-id"])


def running(fleet: Fleet, id: str) -> int:
    """Wait until the task runs, and give the process that runs it."""
    until(lambda: fleet.diary.exists() and [run for run in runs(fleet.diary) if run.task == id], 20)
    return by_task(runs(fleet.diary))[id][-1].pid
