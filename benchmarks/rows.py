"""The rows of the requests/s table, and the processes that one of them is made of."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import servers
from tests import serving
from tests.collector import Collector

# A worker has no common way to say that it is ready, and its start would be measured.
SETTLING_SECONDS = 3


class Row(NamedTuple):
    """One application, and what is on disk when it answers.

    `segments` is how many a traced request of it makes; `worker` is the command that runs the tasks
    where the application does not.
    """

    name: str
    app: str
    fsync: str = "none, memory"
    command: Sequence[str] = ("uvicorn",)
    segments: int = 0
    needs: tuple[servers.Kind, ...] = ()
    worker: tuple[str, ...] = ()

    def missing(self) -> set[str]:
        """Say what to install for the servers that it needs."""
        return {complaint for kind in self.needs if (complaint := kind.missing())}


PER_COMMIT = "at each commit"
OTHERS = "benchmarks.others"
SAQ_WORKER = ("saq", f"{OTHERS}.saq_app.worker")
ARQ_WORKER = ("arq", f"{OTHERS}.arq_app.Worker", "--custom-log-dict", f"{OTHERS}.arq_app.QUIET")
FLEET_WORKER = ("celery", "--app", "benchmarks.fleet_worker", "worker")
CELERY_WORKER = ("celery", "--app", f"{OTHERS}.celery_app:queue", "worker")
PROCRASTINATE_WORKER = ("procrastinate", "--app", f"{OTHERS}.procrastinate_app.queue", "worker")

REFERENCE = Row("Starlette, one in-memory task", "benchmarks.plain:in_memory")
DURABLE = Row("ours durable (SQLite), untraced", "benchmarks.apps:durable", PER_COMMIT)
TRACED = DURABLE._replace(name="ours durable (SQLite), traced", segments=2)
POSTGRES = (servers.POSTGRES,)
ON_POSTGRES = DURABLE._replace(name="ours durable (Postgres), untraced", needs=POSTGRES)
FLEET = DURABLE._replace(
    name="ours durable (Postgres), published over RabbitMQ",
    needs=(servers.POSTGRES, servers.OUR_BROKER),
    worker=FLEET_WORKER,
)
PLUGIN = REFERENCE._replace(
    name="the agent's own plugin, one in-memory task",
    command=("sw-python", "run", "uvicorn"),
    segments=1,
)


def _other(name: str, app: str, fsync: str, needs: servers.Kind, worker: tuple[str, ...]) -> Row:
    return Row(name, f"{OTHERS}.{app}", fsync, needs=(needs,), worker=worker)


ALWAYS, EVERY_SECOND = servers.REDIS_ALWAYS, servers.REDIS_EVERY_SECOND
PLAIN = _other(
    "Celery over RabbitMQ", "celery_app:app", "not waited for", servers.RABBITMQ, CELERY_WORKER
)
CONFIRMED = PLAIN._replace(
    name="Celery over RabbitMQ, publisher confirms",
    app=f"{OTHERS}.celery_app:confirmed_app",
    fsync="before each confirm",
)
PROCRASTINATE = Row(
    "Procrastinate over Postgres",
    f"{OTHERS}.procrastinate_app:app",
    PER_COMMIT,
    needs=POSTGRES,
    worker=PROCRASTINATE_WORKER,
)
CELERY = (PLAIN, CONFIRMED)
QUEUES = (
    _other("SAQ over Redis", "saq_app:app", "appendfsync always", ALWAYS, SAQ_WORKER),
    _other("SAQ over Redis", "saq_app:app", "appendfsync everysec", EVERY_SECOND, SAQ_WORKER),
    _other("arq over Redis", "arq_app:app", "appendfsync always", ALWAYS, ARQ_WORKER),
    PROCRASTINATE,
    *CELERY,
)
ROWS = (
    Row("raw ASGI, no task", "benchmarks.plain:raw", ""),
    Row("Starlette, no task", "benchmarks.plain:bare", ""),
    Row("FastAPI, one in-memory task", "benchmarks.others.fastapi_app:app"),
    Row("ours in memory, untraced", "benchmarks.apps:ours"),
    Row("ours in memory, traced", "benchmarks.apps:ours", segments=2),
    DURABLE,
    TRACED,
    ON_POSTGRES,
    FLEET,
    PLUGIN,
    *QUEUES,
)


@contextmanager
def serving_row(row: Row, collector: Collector | None = None) -> Iterator[serving.Server]:
    """Run the row's servers, application and worker; give the application, which is to be asked."""
    variables = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address} if collector else {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variables |= stack.enter_context(servers.running(row.needs))
        app = serving.start(
            directory, app=row.app, command=row.command, args=["--no-access-log"], **variables
        )
        stack.callback(app.kill)
        if row.worker:
            app.wait_for_log("startup complete")  # it makes the tables that a worker may need
            # Not every command line looks for modules where it was started.
            worker = serving.start(
                directory, app="", command=row.worker, PYTHONPATH=str(serving.ROOT), **variables
            )
            stack.callback(worker.kill)
            time.sleep(SETTLING_SECONDS)
            if worker.process.poll() is not None:
                raise RuntimeError(f"the worker of {row.name} has ended:\n{worker.log()}")
        yield app
