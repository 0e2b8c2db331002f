"""Our rows of the requests/s tables, and the processes that a row is made of."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import counting, servers
from benchmarks.plain import LOGS
from tests import serving
from tests.collector import Collector

# A worker has no common way to say that it is ready, and its start would be measured.
SETTLING_SECONDS = 3


class Row(NamedTuple):
    """One application, and what is on disk when it answers.

    `segments` is how many a traced request of it makes; `worker` is the command that runs the tasks
    where the application does not; `processes` answer; `logs` has the lines of requests and tasks
    written to a file, as they come; without `runs` no task comes of a request.
    """

    name: str
    app: str
    fsync: str = "none, memory"
    command: Sequence[str] = ("uvicorn",)
    segments: int = 0
    needs: tuple[servers.Kind, ...] = ()
    worker: tuple[str, ...] = ()
    processes: int = 1
    logs: bool = False
    runs: bool = True

    def missing(self) -> set[str]:
        """Say what to install for the servers and the environment that it needs."""
        complaints = {kind.missing() for kind in self.needs}
        for program in {self.command[0], *self.worker[:1]}:
            if not (serving.BIN / program).exists():
                complaints.add(f"{program} is not installed (make bench installs it)")
        return complaints - {""}

    def start(self, directory: Path, **variables: str) -> serving.Server:
        """Start the application, not its servers and its worker."""
        if self.processes > 1:
            variables["WEB_CONCURRENCY"] = f"{self.processes}"
        if self.logs:
            environ = serving.environment(directory, {**variables, LOGS: "1"})
            return servers.ToFile(["uvicorn", self.app, "--port", "0"], environ)
        quiet = ["--no-access-log"]
        return serving.start(directory, app=self.app, command=self.command, args=quiet, **variables)


PER_COMMIT = "at each commit"
FLEET_WORKER = ("celery", "--app", "benchmarks.fleet_worker", "worker")

REFERENCE = Row("Starlette, one in-memory task", "benchmarks.plain:in_memory")
DURABLE = Row("ours durable (SQLite), untraced", "benchmarks.apps:durable", PER_COMMIT)
TRACED = DURABLE._replace(name="ours durable (SQLite), traced", segments=2)
LOGGED = DURABLE._replace(name="ours durable (SQLite), its log as it comes", logs=True)
TWO = DURABLE._replace(name="ours durable (SQLite), WEB_CONCURRENCY=2", processes=2)
POSTGRES = (servers.POSTGRES,)
ON_POSTGRES = DURABLE._replace(name="ours durable (Postgres), untraced", needs=POSTGRES)
TWO_ON_POSTGRES = ON_POSTGRES._replace(
    name="ours durable (Postgres), WEB_CONCURRENCY=2", processes=2
)
FLEET = DURABLE._replace(
    name="ours durable (Postgres), published over RabbitMQ",
    needs=(servers.POSTGRES, servers.OUR_RABBITMQ),
    worker=FLEET_WORKER,
)
FLEET_OVER_REDIS = FLEET._replace(
    name="ours durable (Postgres), published over Redis",
    needs=(servers.POSTGRES, servers.OUR_REDIS),
)
IN_MEMORY = Row("ours in memory, untraced", "benchmarks.apps:ours")
IN_MEMORY_TRACED = IN_MEMORY._replace(name="ours in memory, traced", segments=2)
PLUGIN = REFERENCE._replace(
    name="the agent's own plugin, one in-memory task",
    command=("sw-python", "run", "uvicorn"),
    segments=1,
)
OURS = (
    IN_MEMORY,
    IN_MEMORY_TRACED,
    DURABLE,
    TRACED,
    LOGGED,
    TWO,
    ON_POSTGRES,
    TWO_ON_POSTGRES,
    FLEET,
    FLEET_OVER_REDIS,
)
BARE = (
    Row("raw ASGI, no task", "benchmarks.plain:raw", "", runs=False),
    Row("Starlette, no task", "benchmarks.plain:bare", "", runs=False),
    Row("FastAPI, one in-memory task", "benchmarks.others.fastapi_app:app"),
    PLUGIN,
)


@contextmanager
def serving_row(
    row: Row, collector: Collector | None = None, runs: Path | None = None
) -> Iterator[serving.Server]:
    """Run the row's servers, application and worker; give the application, which is to be asked.

    In `runs` every process counts the tasks that it has run.
    """
    variables = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address} if collector else {}
    if runs:
        variables[counting.VARIABLE] = f"{runs}"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variables |= stack.enter_context(servers.running(row.needs))
        app = row.start(directory, **variables)
        stack.callback(app.kill)
        # Not all listen when the port is told, and a worker may need the application's tables.
        app.wait_for_log("(?s)" + ".*".join(["startup complete"] * row.processes))
        if row.worker:
            # Not every command line looks for modules where it was started.
            worker = serving.start(
                directory, app="", command=row.worker, PYTHONPATH=str(serving.ROOT), **variables
            )
            stack.callback(worker.kill)
            time.sleep(SETTLING_SECONDS)
            if worker.process.poll() is not None:
                raise RuntimeError(f"the worker of {row.name} has ended:\n{worker.log()}")
        yield app
