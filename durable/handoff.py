"""The seam with Starlette: what a response's `background` becomes once its handler has returned.

Intended differences from Starlette: a registered task function (`@task`) becomes a row before anything is sent, and
anything else lives in memory; the tasks of one response run side by side (`InOrder` asks for one after another); they
run outside of the request, in an empty contextvars context; and one that fails stops neither its siblings nor the
connection that it came in on.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from durable import idempotency, registry
from durable.errors import KeyIsUnderWay
from durable.idempotency import Key
from durable.model import Policy, Task, new_task_id
from storage.database import Connection

Handler = Callable[[Request], Awaitable[Response] | Response]
AsyncHandler = Callable[[Request], Awaitable[Response]]
Background = Callable[[], object]


class InOrder(BackgroundTasks):
    """Tasks that run one after another, in memory only: each starts when the one before has ended, however it ended."""


class Stored(BackgroundTask):
    """Tasks that are in the database already."""

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks


def after_answer(
    handler: Handler,
    carrier_of: Callable[[Request], str],
    read_body: Callable[[Request], Awaitable[bytes]] = Request.body,
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route's handler, so that what its response attaches is stored before the answer and runs after it.

    The handler finds in `request.state.task_id` the id that the first of its tasks will have. `carrier_of` gives the
    request's trace context as text. In `request.app.state` the wrapper finds `worker`, which runs stored tasks, and
    `engine`, which runs any other. `read_body` is called for a request with an `Idempotency-Key` only.
    """

    answer = _as_coroutine(handler)

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        request.state.task_id = new_task_id()
        request.state.make_task = _maker(request, carrier_of)
        if "idempotency-key" not in request.headers:
            return await _answered(answer, request, None)
        return await _answered_once(answer, request, idempotency.key_of(request, await read_body(request)))

    return endpoint


async def store(request: Request, connection: Connection, background: BackgroundTasks) -> BackgroundTasks:
    """Store the tasks in the handler's own transaction, so that both are committed or neither; attach what it returns.

    Raises what `Worker.accept` raises, and ValueError for what no `@task` has registered.
    """
    groups = list(_groups(background, request.state.make_task))
    if not all(map(_is_to_be_stored, groups)):
        raise ValueError("only registered task functions can be stored")
    tasks = [task for [task] in groups]
    await _store_within(connection, request, tasks)
    return BackgroundTasks([Stored(tasks)])


async def _store_within(connection: Connection, request: Request, tasks: list[Task]) -> None:
    if request.state.idempotency_key:
        await idempotency.reserve(connection, request.state.idempotency_key)
    await request.app.state.worker.accept_within(connection, tasks)


async def _answered(handler: AsyncHandler, request: Request, key: Key | None) -> Response:
    request.state.idempotency_key = key
    response = await handler(request)
    if response.background is not None:
        await _take_over(request, response, key)
    return response


async def _answered_once(handler: AsyncHandler, request: Request, key: Key | None) -> Response:
    if key is None:
        return await _answered(handler, request, None)
    database = request.app.state.database
    if earlier := await idempotency.earlier_answer(database, key):
        return earlier
    try:
        return await _answered(handler, request, key)
    except idempotency.SeenBefore:  # at the same moment
        earlier = await idempotency.earlier_answer(database, key)
        if earlier is None:
            raise KeyIsUnderWay("the first request with this Idempotency-Key failed; send it again") from None
        return earlier


def _as_coroutine(handler: Handler) -> AsyncHandler:
    """Call a plain function in a thread, as Starlette does."""
    if inspect.iscoroutinefunction(handler):
        return handler

    async def in_thread(request: Request) -> Response:
        result = await run_in_threadpool(handler, request)
        return result if isinstance(result, Response) else await result

    return in_thread


async def _take_over(request: Request, response: Response, key: Key | None) -> None:
    groups = [group for group in _groups(response.background, request.state.make_task) if group]
    if new := [task for [task] in filter(_is_to_be_stored, groups)]:
        await _store(request, new)
    tasks = [task for group in groups for task in group]
    if tasks:
        response.headers["Task-Id"] = ", ".join(task.id for task in tasks)
        response.background = BackgroundTask(_start, request.app.state, groups)
    if response.status_code == HTTPStatus.ACCEPTED and len(tasks) == 1 and tasks[0].stored:
        response.headers["Location"] = f"/tasks/{tasks[0].id}"
    if key is not None and any(task.stored for task in tasks):
        async with request.app.state.database.transaction() as connection:
            await idempotency.remember(connection, key, response)


async def _store(request: Request, tasks: list[Task]) -> None:
    if request.state.idempotency_key is None:
        await request.app.state.worker.accept(tasks)
        return
    # Not with others' in one commit: a key that another request has would fail theirs as well.
    async with request.app.state.database.transaction() as connection:
        await _store_within(connection, request, tasks)


async def _start(state: Any, groups: list[list[Task]]) -> None:
    if stored := [task for group in groups for task in group if task.stored]:
        state.worker.start(stored)
    state.engine.start([group for group in groups if not group[0].stored])


def _is_to_be_stored(group: list[Task]) -> bool:
    return len(group) == 1 and not group[0].stored and registry.of_function(group[0].function) is not None


def _groups(background: Background | None, make_task: Callable[[Background], Task]) -> Iterator[list[Task]]:
    """Yield the tasks in lists: one list's tasks run in order, the lists side by side.

    What is Starlette's own is taken apart, however it is nested; anything else stays whole.
    """
    match background:
        case None:
            return
        case Stored(tasks=tasks):
            yield from ([task] for task in tasks)
        case InOrder(tasks=parts):
            yield [task for part in parts for group in _groups(part, make_task) for task in group]
        case BackgroundTasks(tasks=parts) if type(background) is BackgroundTasks:
            for part in parts:
                yield from _groups(part, make_task)
        case _:
            yield [make_task(background)]


def _maker(request: Request, carrier_of: Callable[[Request], str]) -> Callable[[Background], Task]:
    """Return what makes tasks of a request: the first has the id that the handler knows."""
    ids = _ids(request.state.task_id)

    def make_task(part: Background) -> Task:
        carrier = carrier_of(request)
        if type(part) is not BackgroundTask:  # Starlette awaits whatever it is
            return Task(next(ids), _name(part), part, is_async=True, carrier=carrier)
        if entry := registry.of_function(part.func):
            name, policy = entry.name, entry.policy
        else:
            name, policy = _name(part.func), Policy()
        return Task(next(ids), name, part.func, part.is_async, part.args, part.kwargs, carrier, policy=policy)

    return make_task


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _ids(first: str) -> Iterator[str]:
    yield first
    while True:
        yield new_task_id()
