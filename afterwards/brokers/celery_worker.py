"""The door to Celery for the workers that run: its tasks, its messages and its shutdown."""

import asyncio
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery import signals
from celery.apps.worker import install_worker_term_handler
from celery.concurrency.base import BasePool
from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker import strategy as celery_strategy

from afterwards import registry
from afterwards.attachments import Attachments
from afterwards.brokers.celery import make_app
from afterwards.brokers.consumer import Consumer, LoopThread
from afterwards.limits import Limits, check
from afterwards.model import Delivery
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.tracing import NO_TRACING, Tracing

log = logging.getLogger("tasks")

END_SECONDS = 6.0  # for the last words of a process; a task may block its event loop

# A task's id, its name and how it came; a word for what became of it.
Run = Callable[[str, str, Delivery], str]

# When and for how long a task runs is said in its row; in a stranger's message it may be what ends
# the worker.
IGNORED_HEADERS = ("timelimit", "eta", "expires")


def worker_app(
    broker_url: str,
    make_database: Callable[[], Database],
    *,
    limits: Limits,
    drain_seconds: float = 20.0,
    tracing: Tracing = NO_TRACING,
    attachments: Attachments | None = None,
) -> Any:
    """Make the Celery application whose workers run every registered task function.

    `make_database` is called in each process that runs tasks: connections survive no fork. After
    SIGTERM what runs gets `drain_seconds` to end.
    """
    check("drain_seconds", drain_seconds)
    # The processes that this worker forks have identities that begin so.
    family = f"celery-{secrets.token_hex(4)}-"
    share = _Share(make_database, limits, tracing, family, attachments)
    app = make_app(broker_url, longest=registry.longest(limits.timeout))
    _silence_successes()
    signals.worker_process_init.connect(share.renew, weak=False)
    signals.setup_logging.connect(_leave_logging, weak=False)
    signals.worker_init.connect(_warn_of_sigterm, weak=False)
    signals.worker_ready.connect(partial(_end_in_time, drain_seconds), weak=False)
    for name in registry.names():
        _register(app, name, share.run)
    _at_end(share)
    return app


class _Share:
    """What one process of a worker runs tasks with.

    A forked process begins it when it starts, because threads survive no fork; any other with its
    first task.
    """

    def __init__(
        self,
        make_database: Callable[[], Database],
        limits: Limits,
        tracing: Tracing,
        family: str,
        attachments: Attachments | None,
    ) -> None:
        self._make_database = make_database
        self._limits = limits
        self._tracing = tracing
        self._family = family
        self._attachments = attachments
        self._making = threading.Lock()
        self._begun: tuple[LoopThread, Consumer] | None = None

    def run(self, id: str, name: str, delivery: Delivery) -> str:
        """Run the task in this process; return a word for what became of it."""
        with self._making:
            loop, consumer = self._begun = self._begun or self._begin()
        return loop.run(consumer.run(id, name, delivery))

    def renew(self, **_: object) -> None:
        """Begin in a process that was just forked."""
        with self._making:
            self._begun = self._begin()

    def end(self) -> None:
        """Give back what still runs in this process."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        loop, consumer = begun
        try:
            loop.run(consumer.end(), END_SECONDS)
            loop.run(self._tracing.stop(), END_SECONDS)
        except TimeoutError:
            log.critical("a task blocks the event loop; others will rescue what is held here")

    async def release(self) -> None:
        """Give back what a process of this worker still held when it was killed."""
        database = self._make_database()
        try:
            await Store(database).release_family(self._family)
        finally:
            await database.close()

    def _begin(self) -> tuple[LoopThread, Consumer]:
        self._tracing.start(has_broker=True, is_consumer=True)
        loop = LoopThread()
        return loop, loop.run(self._consumer())

    async def _consumer(self) -> Consumer:
        consumer = Consumer(
            self._make_database(),
            self._limits,
            self._tracing,
            family=self._family,
            attachments=self._attachments,
        )
        await consumer.begin()
        return consumer


def _at_end(share: _Share) -> None:
    """End the share of each process when it ends, and release all after a cold shutdown.

    Celery knows no way to cut off tasks in threads of its own process, and its cold shutdown fails
    over them. Here there is one: the end of what runs them.
    """

    def end_of_worker(*, how: str, **_: object) -> None:
        # By now its processes have ended; a warm shutdown has waited for their tasks.
        if how == "Cold":
            asyncio.run(share.release())

    BasePool.terminate_job = lambda *_: share.end()  # a pool of processes has its own
    signals.worker_process_shutdown.connect(lambda **_: share.end(), weak=False)
    signals.worker_shutdown.connect(lambda **_: share.end(), weak=False)  # a warm one has waited
    signals.worker_shutting_down.connect(end_of_worker, weak=False)


def _register(app: Any, name: str, run: Run) -> None:
    @app.task(name=name, bind=True, shared=False, Strategy=f"{__name__}:strategy")  # type: ignore[untyped-decorator]  # celery brings no types
    def body(self: Any, id: str) -> str:
        return run(id, name, _delivery(self.request))


def _delivery(request: Any) -> Delivery:
    published_at = request.get("published_at")  # in milliseconds; older versions tell none
    return Delivery(
        str(request.get("carrier") or ""),
        str((request.delivery_info or {}).get("routing_key") or ""),
        published_at / 1000 if isinstance(published_at, int) else None,
    )


def _leave_logging(**_: object) -> None:
    """Being connected is all that it takes: Celery then leaves logging as it is."""


def _silence_successes() -> None:
    # Celery says "succeeded" of every attempt: how one has ended is this library's affair.
    logger = logging.getLogger("celery.app.trace")
    logger.setLevel(max(logging.WARNING, logger.level))


def _warn_of_sigterm(**_: object) -> None:
    if REMAP_SIGTERM != "SIGQUIT":
        log.warning(
            "set REMAP_SIGTERM=SIGQUIT, or SIGTERM waits for running tasks until the platform"
            " kills them"
        )


def _end_in_time(seconds: float, *, sender: Any, **_: object) -> None:
    """Have SIGTERM end the worker once what runs has ended, at the latest after so many seconds.

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
    """Take messages as Celery does, but neither one that would end the worker, nor one twice.

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
