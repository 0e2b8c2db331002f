"""The seam with Starlette: what a response's `background` becomes once its handler has returned.

Intended differences from Starlette: a registered task function (`@task`) becomes a row before
anything is sent, and anything else lives in memory; the tasks of one response run side by side
(`InOrder` asks for one after another); they run outside of the request, in an empty contextvars
context; and one that fails stops neither its siblings nor the connection that it came in on.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from itertools import pairwise
from typing import Any, ParamSpec

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from afterwards import idempotency, registry
from afterwards.errors import CutOff, KeyIsUnderWay
from afterwards.idempotency import Key
from afterwards.model import Policy, Task, new_task_id
from afterwards.store.database import Connection
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown

log = logging.getLogger("tasks")

P = ParamSpec("P")

Handler = Callable[[Request], Awaitable[Response] | Response]
AsyncHandler = Callable[[Request], Awaitable[Response]]
Background = Callable[[], object]


HANDING = "afterwards.request"  # where a request's scope keeps it


class InOrder(BackgroundTasks):
    """Tasks that run one after another: each starts when the one before has ended for good, however it ended.

    They are stored if all of them are registered task functions, and live in memory if any is not.
    """


class Later(BackgroundTask):
    """A call of a registered task function that is not to run before `run_at`; it is noticed within half a second."""

    def __init__(
        self, run_at: datetime, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        if run_at.tzinfo is None:
            raise ValueError(
                "run_at must say its time zone: datetime.now(UTC) + timedelta(hours=1)"
            )
        if registry.of_function(function) is None:
            raise ValueError(
                f"{_name(function)} is no registered task function, and only those are kept for later"
            )
        super().__init__(function, *args, **kwargs)
        self.run_at = run_at


class Stored(BackgroundTask):
    """Tasks that are in the database already."""

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks


class _Handing:
    """A request whose tasks are handed over: the first of them has the id that the handler knows."""

    __slots__ = ("carrier_of", "id", "key", "request")

    def __init__(self, request: Request, carrier_of: Callable[[Request], str]) -> None:
        self.request = request
        self.carrier_of = carrier_of
        self.id = new_task_id()
        self.key: Key | None = None
        # What request.state.task_id would do, without making the object behind it for every
        # request.
        request.scope.setdefault("state", {})["task_id"] = self.id
        request.scope[HANDING] = self

    def make_task(self, part: Background) -> Task:
        id, self.id = self.id, ""
        id = id or new_task_id()
        carrier = self.carrier_of(self.request)
        if (
            type(part) is not BackgroundTask and type(part) is not Later
        ):  # Starlette awaits whatever it is
            return Task(id, _name(part), part, is_async=True, carrier=carrier)
        if entry := registry.of_function(part.func):
            name, policy = entry.name, entry.policy
        else:
            name, policy = _name(part.func), Policy()
        run_at = part.run_at if type(part) is Later else None
        return Task(
            id,
            name,
            part.func,
            part.is_async,
            part.args,
            part.kwargs,
            carrier,
            policy=policy,
            run_at=run_at,
        )


class _Start:
    """The background that a response has in place of the handler's: it starts the tasks, and returns at once."""

    __slots__ = ("groups", "state")

    def __init__(self, state: Any, groups: list[list[Task]]) -> None:
        self.state = state
        self.groups = groups

    async def __call__(self) -> None:
        if stored := [task for group in self.groups for task in group if task.stored]:
            self.state.worker.start(stored)
        if in_memory := [group for group in self.groups if not group[0].stored]:
            self.state.engine.start(in_memory)


def after_answer(
    handler: Handler,
    carrier_of: Callable[[Request], str],
    read_body: Callable[[Request], Awaitable[bytes]] = Request.body,
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route's handler, so that what its response attaches is stored before the answer and runs after it.

    The handler finds in `request.state.task_id` the id that the first of its tasks will have.
    `carrier_of` gives the request's trace context as text. In `request.app.state` the wrapper finds
    `worker`, which runs stored tasks, and `engine`, which runs any other. `read_body` is called for
    a request with an `Idempotency-Key` only.
    """

    answer = _as_coroutine(handler)

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        handing = _Handing(request, carrier_of)
        try:
            if idempotency.is_asked_for(request):
                handing.key = idempotency.key_of(request, await read_body(request))
                return await _answered_once(answer, handing, handing.key)
            return await _answered(answer, handing)
        except asyncio.CancelledError as error:  # by the server, which would answer 500
            raise CutOff("this process ends") from error

    return endpoint


async def store(
    request: Request, connection: Connection, background: BackgroundTasks
) -> BackgroundTasks:
    """Store the tasks in the handler's own transaction, so that both are committed or neither; attach what it returns.

    Raises what `Worker.accept` raises, and ValueError for what no `@task` has registered.
    """
    handing: _Handing = request.scope[HANDING]
    groups = _groups(background, handing)
    if not all(map(_is_to_be_stored, groups)):
        raise ValueError("only registered task functions can be stored")
    tasks = [task for group in groups for task in group]
    if handing.key is not None:
        ids = [task.id for task in tasks]
        await idempotency.reserve(request.app.state.database, connection, handing.key, ids)
    await request.app.state.worker.accept_within(connection, tasks)
    return BackgroundTasks([Stored(tasks)])


async def _answered(handler: AsyncHandler, handing: _Handing) -> Response:
    response = await handler(handing.request)
    if response.background is not None:
        await _take_over(handing, response)
    return response


async def _answered_once(handler: AsyncHandler, handing: _Handing, key: Key) -> Response:
    database = handing.request.app.state.database
    if earlier := await idempotency.earlier_answer(database, key):
        return earlier
    try:
        response = await _answered(handler, handing)
    except idempotency.SeenBefore:  # at the same moment
        earlier = await idempotency.earlier_answer(database, key)
        if earlier is None:
            raise KeyIsUnderWay(
                "the first request with this Idempotency-Key failed; send it again"
            ) from None
        return earlier
    except OutcomeUnknown:
        raise KeyIsUnderWay(
            "whether the request was stored is not known yet; send it again in a moment"
        ) from None
    except DatabaseUnavailable:
        raise
    except Exception:
        # The first request may be why: its user, say, stands in the way of this one's.
        if earlier := await idempotency.earlier_answer(database, key):
            return earlier
        raise
    if response.status_code >= HTTPStatus.BAD_REQUEST and (
        earlier := await idempotency.earlier_answer(database, key)
    ):
        return earlier
    return response


def _as_coroutine(handler: Handler) -> AsyncHandler:
    """Call a plain function in a thread, as Starlette does."""
    if inspect.iscoroutinefunction(handler):
        return handler

    async def in_thread(request: Request) -> Response:
        result = await run_in_threadpool(handler, request)
        return result if isinstance(result, Response) else await result

    return in_thread


async def _take_over(handing: _Handing, response: Response) -> None:
    groups = _groups(response.background, handing)
    tasks = [task for group in groups for task in group]
    if not tasks:
        return
    new = [task for group in groups if _is_to_be_stored(group) for task in group]
    ids = tasks[0].id if len(tasks) == 1 else ", ".join(task.id for task in tasks)
    response.raw_headers.append((b"task-id", ids.encode()))
    if response.status_code == HTTPStatus.ACCEPTED and len(tasks) == 1 and (new or tasks[0].stored):
        response.headers["Location"] = f"/tasks/{ids}"
    response.background = _Start(handing.request.app.state, groups)  # type: ignore[assignment]  # Starlette awaits it
    is_reserved = any(task.stored for task in tasks)  # by the handler, in its own transaction
    if handing.key is None and new:
        await handing.request.app.state.worker.accept(new)
    elif handing.key is not None and new:
        await _store_with_answer(handing, handing.key, response, new, is_reserved=is_reserved)
    elif handing.key is not None and is_reserved:
        await _remember(handing, handing.key, response)


async def _store_with_answer(
    handing: _Handing, key: Key, response: Response, tasks: list[Task], *, is_reserved: bool
) -> None:
    # Not with others' in one commit: a key that another request has would fail theirs as well.
    state = handing.request.app.state
    async with state.database.transaction() as connection:
        if not is_reserved:
            await idempotency.reserve(state.database, connection, key, [task.id for task in tasks])
        await state.worker.accept_within(connection, tasks)
        await idempotency.remember(state.database, connection, key, response)


async def _remember(handing: _Handing, key: Key, response: Response) -> None:
    database = handing.request.app.state.database
    try:
        async with database.transaction() as connection:
            await idempotency.remember(database, connection, key, response)
    except (
        DatabaseUnavailable
    ) as error:  # what the handler has committed is done, and must not be answered by a 503
        log.warning("an answer is not kept beside its Idempotency-Key: %s", error)


def _is_to_be_stored(group: list[Task]) -> bool:
    return all(
        not task.stored and registry.of_function(task.function) is not None for task in group
    )


def _groups(background: Background | None, handing: _Handing) -> list[list[Task]]:
    """List the tasks in lists: one list's tasks run in order, the lists side by side.

    What is Starlette's own is taken apart, however it is nested; anything else stays whole.
    """
    match background:
        case None:
            return []
        case Stored(tasks=tasks):
            return [[task] for task in tasks]
        case InOrder(tasks=parts):
            in_order = [
                task for part in parts for group in _groups(part, handing) for task in group
            ]
            if any(task.stored for task in in_order):
                raise ValueError(
                    "what is stored already cannot be put in order: give `store` an InOrder"
                )
            for before, after in pairwise(in_order):
                before.is_followed, after.follows = True, before.id
            return [in_order] if in_order else []
        case BackgroundTasks(tasks=parts) if type(background) is BackgroundTasks:
            return [group for part in parts for group in _groups(part, handing)]
        case _:
            return [[handing.make_task(background)]]


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
