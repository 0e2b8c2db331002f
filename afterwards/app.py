"""`Afterwards`: what is configured once, installed into applications, started, and asked."""

import asyncio
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, NoReturn, ParamSpec

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from starlette.applications import Starlette

from afterwards import erasing, http, installation, registry, server
from afterwards.attachments import Attachments
from afterwards.background import Groups, name_of, new_task, require_zone, task_function
from afterwards.brokers import Broker, check_broker
from afterwards.errors import NotStarted, UnknownTask
from afterwards.intake import Admit
from afterwards.limits import Limits, check
from afterwards.model import Task, new_task_id
from afterwards.process import Process
from afterwards.request_tasks import RequestTasks, current_request
from afterwards.sealing import Seal
from afterwards.store.database import Connection, Database, connection_of
from afterwards.store.engines import check_url
from afterwards.store.sql import check_prefix
from afterwards.store.tasks import Store
from afterwards.tracing import NO_TRACING, Tracing

P = ParamSpec("P")


class Afterwards:
    """Background tasks over the database at `url`, SQLite's or Postgres'.

    `run_tasks=False` accepts only: workers elsewhere run the tasks (`python -m afterwards worker`).
    With a `broker` (amqp://, redis:// or sqs://) those are Celery's. `max_running` coroutines and
    `threads` plain functions run at a time, each attempt for `timeout` seconds at most, unless its
    `@task` says otherwise. Beyond `max_queued` waiting tasks nothing is accepted. What succeeded
    or was cancelled is kept for `keep_days`, what is dead for `keep_dead_days`; `drain_seconds` is
    what running tasks get at the end.
    A request with an `Idempotency-Key` is read whole, up to `max_keyed_body` bytes. `admit` is
    awaited with tasks before they are accepted, and refuses them by raising a `Refused`. With a
    `secret_key` arguments that `@task` names as secret are encrypted; of several the first one
    encrypts, and all of them decrypt. What `attachments` keep for a task goes when its row does.
    Nothing is opened here. Raises ValueError for a wrong argument.
    """

    database: Database
    store: Store
    process: Process

    def __init__(
        self,
        url: str = "sqlite:///data/tasks.db",
        *,
        run_tasks: bool = True,
        broker: str | None = None,
        table_prefix: str = "afterwards_",
        max_running: int = 1000,
        threads: int = 8,
        timeout: float = 60.0,
        max_queued: int = 100_000,
        keep_days: float = 7.0,
        keep_dead_days: float = 30.0,
        drain_seconds: float = 20.0,
        max_keyed_body: int = 1024 * 1024,
        admit: Admit | None = None,
        secret_key: str | Sequence[str] | None = None,
        attachments: Attachments | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        check_url(url)
        check_prefix(table_prefix)
        if broker is not None:
            check_broker(broker)
        check("drain_seconds", drain_seconds)
        check("max_keyed_body", max_keyed_body, is_whole=True)
        self.limits = Limits(
            max_running=max_running,
            threads=threads,
            timeout=timeout,
            max_queued=max_queued,
            keep_days=keep_days,
            keep_dead_days=keep_dead_days,
        )
        self.url, self.broker, self.table_prefix = url, broker, table_prefix
        self.run_tasks, self.admit, self.tracing = run_tasks, admit, tracing
        self.drain_seconds = drain_seconds
        self.seal, self.attachments = Seal(secret_key), attachments
        self.max_keyed_body = max_keyed_body
        self.pages: str | None = None  # the path below which an application shows tasks
        self.is_started = False
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the database was opened
        self._has_tables = False
        self._pid = 0  # of the process that opened it
        self._in_turn = threading.Lock()
        installation.watch_responses()

    # --- an application ---

    def install(self, app: Starlette) -> None:
        """Have the application store what its responses attach, and run it while it lives.

        Raises TypeError for what is no Starlette application, RuntimeError for one that has started
        or has installed before.
        """
        installation.install(app, self)

    async def start(self) -> None:
        """Begin to accept and to run tasks; a database that is away is waited for meanwhile."""
        if self.is_started:
            raise RuntimeError("this Afterwards runs already: make one for each application")
        self.tracing.start(has_broker=self.broker is not None)
        self._open()
        self.is_started = True
        await self.process.begin()

    async def stop(self, seconds: float | None = None) -> None:
        """Let what runs end, give back what does not, and close the database.

        `seconds` is the time for that, `drain_seconds` by default; a server that reloads at each
        change of the code waits for none.
        """
        if self._loop is None:
            return
        if self.is_started:
            patience = 0.0 if server.reloads() else self.drain_seconds
            await self.process.drain(patience if seconds is None else seconds)
        self.is_started, self._loop, self._has_tables = False, None, False
        await self.store.close()
        await asyncio.gather(self.database.close(), self.tracing.stop())

    # --- tasks ---

    async def enqueue(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        run_at: datetime | None = None,
        within: AsyncConnection | AsyncSession | None = None,
        **kwargs: Any,
    ) -> str:
        """Store a task, and return its id; it starts at once, or not before `run_at`.

        With `within`, a connection or session of your own on the same database, it is committed by
        your commit, or not at all. Raises `Refused` where nothing was accepted, `UnknownTask` for
        a function without `@task`, `ArgumentsRefused`.
        """
        request = current_request.get()
        request = request if request is not None and request.owner is self else None
        task = self._task(function, args, kwargs, run_at, request)
        await self._ready()
        if within is not None:
            await self._enqueue_within(await connection_of(within), task, request)
            if request is not None:
                request.enqueued_within = True
            return task.id
        if request is not None and request.key is not None:
            async with self.database.transaction() as connection:
                await self._enqueue_within(connection, task, request)
        else:
            await self.process.accept([task])
            if request is not None:
                request.add(task)
        self.process.start([task])
        return task.id

    def enqueue_sync(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        run_at: datetime | None = None,
        **kwargs: Any,
    ) -> str:
        """Store a task as `enqueue` does, from a plain function, in a thread or in a script."""

        enqueue = functools.partial(self.enqueue, function, *args, run_at=run_at, **kwargs)
        self._refuse_in_child()
        here = _running_loop()
        if here is not None and (self._loop is here or not self._has_running_loop()):
            raise RuntimeError("in a coroutine await enqueue(...): this would wait for itself")
        # Threads without a loop to share take turns, each with a short-lived one of its own.
        with nullcontext() if self.is_started else self._in_turn:
            if self._loop is not None and self._loop.is_running():
                return asyncio.run_coroutine_threadsafe(enqueue(), self._loop).result()
            return asyncio.run(self._alone(enqueue))

    async def erase(
        self, text: str, *, within: AsyncConnection | AsyncSession | None = None
    ) -> int:
        """Delete each task that holds the text, whatever its state, and return how many they were.

        It is looked for as a word, in any letter case, in arguments (secret ones too), results and
        errors, and in the answers that are stored beside Idempotency-Keys, which are deleted too.
        What runs is cut off within seconds, and leaves an empty row until that is pruned. All rows
        are read. With `within` it happens by your commit, or not at all. Raises ValueError for a
        text without letters and digits, `DatabaseUnavailable`.
        """
        await self._ready()
        return await erasing.erase(self.database, text, within)

    def celery(self) -> Any:
        """Make the application whose workers run these tasks, where there is a broker."""
        from afterwards.brokers import celery_worker  # here, because it is an extra

        if self.broker is None:
            raise ValueError("broker: takes the one that Celery's workers listen to")
        return celery_worker.worker_app(
            self.broker,
            lambda: Database(self.url, self.table_prefix, self.seal),
            limits=self.limits,
            drain_seconds=self.drain_seconds,
            tracing=self.tracing,
            attachments=self.attachments,
        )

    def is_well(self) -> bool:
        """Tell whether the database was reached lately; it is not asked now."""
        return self.is_started and self.process.is_well()

    def state(self) -> dict[str, Any]:
        """Return how many tasks wait and run, as of the last heartbeat."""
        return self.process.state()

    # --- for the rooms of this library ---

    def run_with(self, database: Database, process: Process) -> None:
        """Count as started with these, which somebody else ends: a test's kit."""
        self.database, self.process, self.store = database, process, process.store
        self.is_started, self._loop = True, asyncio.get_running_loop()
        self._pid = os.getpid()

    def opened(self) -> Database:
        """Return the database; raise `NotStarted` where nothing runs."""
        if not self.is_started:
            raise NotStarted
        return self.database

    def accept(self, tasks: Sequence[Task]) -> Awaitable[None]:
        """Store a request's tasks."""
        self.opened()
        return self.process.accept(tasks)

    def accept_within(self, connection: Connection, tasks: Sequence[Task]) -> Awaitable[None]:
        """Store a request's tasks in a transaction."""
        self.opened()
        return self.process.accept_within(connection, tasks)

    def start_tasks(self, stored: Sequence[Task], in_memory: Groups) -> None:
        """Start what a request has accepted: its answer has gone."""
        if stored:
            self.process.start(stored)
        if in_memory:
            self.process.start_in_memory(in_memory)

    def http(
        self,
        *,
        token: str | Sequence[str] | None = None,
        read_token: str | Sequence[str] | None = None,
        development: bool = False,
    ) -> Starlette:
        """Make an application that answers what is asked of these tasks, to be mounted.

        Operators need a `token`, or, only to look, a `read_token`; of several each is right. With
        none, `development` admits whoever is on this machine.
        """
        return http.make(self, http.Operators(token, read_token, development=development))

    def make_broker(self) -> Broker | None:
        """Make what publishes to the broker, if there is one; nothing is connected yet."""
        if self.broker is None:
            return None
        from afterwards.brokers import celery  # here, because it is an extra

        app = celery.make_app(self.broker, longest=registry.longest(self.limits.timeout))
        return celery.CeleryBroker(app, self.broker, self.tracing)

    def found(self, app: Starlette) -> None:
        """Look where the application that installs this shows tasks."""
        http.answer_without_slash(app)
        self.pages = http.path_in(app, self)

    def _task(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run_at: datetime | None,
        request: RequestTasks | None,
    ) -> Task:
        entry, first, named = task_function(function)
        if entry is None:
            raise UnknownTask(f"{name_of(function)} is not under @task, and cannot be stored")
        if run_at is not None:
            require_zone(run_at)
        id = request.next_id() if request else new_task_id()
        carrier = self.tracing.carrier(request.scope if request else None)
        return new_task(entry, (*first, *args), {**named, **kwargs}, id, carrier, run_at)

    async def _enqueue_within(
        self, connection: Connection, task: Task, request: RequestTasks | None
    ) -> None:
        def insert() -> Any:
            return self.process.accept_within(connection, [task])

        if request is None:
            await insert()
        else:
            await request.enqueue_within(connection, task, insert)

    async def _alone(self, enqueue: Callable[[], Awaitable[str]]) -> str:
        try:
            return await enqueue()
        finally:
            await self.stop()

    def _refuse_in_child(self) -> None:
        if self._loop is not None and self._pid != os.getpid():
            # SQLite's locks and a Postgres' connections do not survive it.
            raise RuntimeError(
                "this process was forked while this Afterwards was open, and must not use it:"
                " start processes by spawn, or before"
            )

    def _has_running_loop(self) -> bool:
        return self._loop is not None and self._loop.is_running()

    async def _ready(self) -> None:
        self._open()
        if not self.is_started and not self._has_tables:
            await self.store.make_tables()
            self._has_tables = True

    def _open(self) -> None:
        self._refuse_in_child()
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self.is_started or self._has_running_loop():
            raise RuntimeError("this Afterwards runs in another event loop: use enqueue_sync here")
        self._loop, self._has_tables, self._pid = loop, False, os.getpid()
        self.database = Database(self.url, self.table_prefix, self.seal)
        for engine in self.database.engines():
            self.tracing.trace_statements(engine)
        self.store = Store(self.database)
        self.process = Process(
            self.store,
            self.limits,
            tracing=self.tracing,
            broker=self.make_broker(),
            run_tasks=self.run_tasks,
            admit=self.admit,
            attachments=self.attachments,
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("database", "store", "process"):
            raise NotStarted
        raise AttributeError(f"an Afterwards has no {name}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
