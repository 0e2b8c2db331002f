"""The door to Celery for the workers that run: its tasks, its messages and its shutdown."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery import signals
from celery.apps.worker import install_worker_term_handler
from celery.concurrency.base import BasePool
from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker import strategy as celery_strategy

log = logging.getLogger("tasks")

Run = Callable[[str, str, str], str]  # a task's id, name and carrier; a word for what became of it

# When and for how long a task runs is said in its row; in a stranger's message it may be what ends
# the worker.
IGNORED_HEADERS = ("timelimit", "eta", "expires")


def serve(
    app: Any, names: Iterable[str], make_run: Callable[[], Run], *, drain_seconds: float
) -> None:
    """Register a Celery task for each name, which runs what `make_run` gives in each process that runs tasks.

    A forked process makes it when it starts, any other with its first task. After SIGTERM what runs
    gets `drain_seconds` to end.
    """
    made: list[Run] = []
    making = threading.Lock()

    def run(id: str, name: str, carrier: str) -> str:
        with making:
            if not made:
                made.append(make_run())
        return made[0](id, name, carrier)

    def make_early(**_: object) -> None:
        with making:
            made[:] = [make_run()]

    signals.worker_process_init.connect(make_early, weak=False)
    signals.setup_logging.connect(_leave_logging, weak=False)
    signals.worker_init.connect(_warn_of_sigterm, weak=False)
    signals.worker_ready.connect(partial(_end_in_time, drain_seconds), weak=False)
    for name in names:
        _register(app, name, run)


def at_end(of_process: Callable[[], None], of_worker: Callable[[], None]) -> None:
    """Call the first in each process that runs tasks when it ends, and the second in the worker after a cold shutdown.

    Celery knows no way to cut off tasks in threads of its own process, and its cold shutdown fails
    over them. Here there is one: the end of what runs them.
    """

    def end_of_worker(*, how: str, **_: object) -> None:
        if (
            how == "Cold"
        ):  # by now its processes have ended; a warm shutdown has waited for their tasks
            of_worker()

    BasePool.terminate_job = lambda *_: of_process()  # a pool of processes has its own
    signals.worker_process_shutdown.connect(lambda **_: of_process(), weak=False)
    signals.worker_shutting_down.connect(end_of_worker, weak=False)


def _register(app: Any, name: str, run: Run) -> None:
    @app.task(name=name, bind=True, shared=False, Strategy=f"{__name__}:strategy")  # type: ignore[untyped-decorator]  # celery brings no types
    def body(self: Any, id: str) -> str:
        return run(id, name, str(self.request.get("carrier") or ""))


def _leave_logging(**_: object) -> None:
    """Being connected is all that it takes: Celery then leaves logging as it is."""


def _warn_of_sigterm(**_: object) -> None:
    if REMAP_SIGTERM != "SIGQUIT":
        log.warning(
            "set REMAP_SIGTERM=SIGQUIT, or SIGTERM waits for running tasks until the platform kills them"
        )


def _end_in_time(seconds: float, *, sender: Any, **_: object) -> None:
    """Have SIGTERM end the worker as soon as what runs has ended, and after so many seconds all the same.

    Celery's own soft shutdown sleeps for the whole time, in its signal handler, whatever has ended
    meanwhile.
    """
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGQUIT))
    timer.daemon = True

    def begin(worker: Any) -> None:
        if (
            not timer.is_alive() and not timer.finished.is_set()
        ):  # platforms may say it several times
            log.info("draining: what runs gets up to %g s to end", seconds)
            timer.start()

    if REMAP_SIGTERM == "SIGQUIT":
        install_worker_term_handler(
            sender.controller, sig="SIGTERM", how="Warm", callback=begin, exitcode=0
        )


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Take messages as Celery does, but refuse one that would end the worker, and a second one of the same task.

    Celery counts its requests by their ids: of two, the shutdown would miss the one that runs.
    """
    take = celery_strategy.default(task, app, consumer, **options)

    def take_or_refuse(message: Any, *args: Any, **kwargs: Any) -> Any:
        for name in IGNORED_HEADERS:
            message.headers.pop(name, None)
        try:
            if state.requests.get(message.headers["id"]) in state.reserved_requests:
                log.debug("%s is here already", message.headers["id"])
                return message.ack_log_error(log, consumer.connection_errors)
            return take(message, *args, **kwargs)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise InvalidTaskError(
                f"a message that nobody here has sent: {error!r}"[:500]
            ) from None

    return take_or_refuse
