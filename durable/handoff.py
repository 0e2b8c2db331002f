"""The seam with Starlette: what a response's `background` becomes once its handler has returned.

Intended differences from Starlette: the tasks of one response run side by side (`InOrder` asks for one after another),
they run outside of the request, in an empty contextvars context, and one that fails stops neither its siblings nor
the connection that it came in on.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator

from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from durable.engines import Engine
from durable.model import Task, new_task_id

Handler = Callable[[Request], Awaitable[Response] | Response]


class InOrder(BackgroundTasks):
    """Tasks that run one after another: each starts when the one before has ended, however it ended."""


def after_answer(handler: Handler, carrier_of: Callable[[Request], str]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route's handler so that what its response attaches runs after the answer, in `request.app.state.engine`.

    The handler finds in `request.state.task_id` the id that the first of its tasks will have. `carrier_of` gives the
    request's trace context as text.
    """

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        request.state.task_id = new_task_id()
        response = await _answer(handler, request)
        sequences = list(_sequences(response.background, request.state.task_id, carrier_of(request)))
        if sequences:
            engine: Engine = request.app.state.engine
            response.headers["Task-Id"] = ", ".join(task.id for tasks in sequences for task in tasks)
            response.background = BackgroundTask(_start, engine, sequences)
        return response

    return endpoint


async def _answer(handler: Handler, request: Request) -> Response:
    if inspect.iscoroutinefunction(handler):
        response: Response = await handler(request)
        return response
    result = await run_in_threadpool(handler, request)  # as Starlette does with a plain function
    return result if isinstance(result, Response) else await result


async def _start(engine: Engine, sequences: list[list[Task]]) -> None:
    engine.start(sequences)


def _sequences(background: Callable[[], object] | None, first_id: str, carrier: str) -> Iterator[list[Task]]:
    """Yield the tasks in lists: one list's tasks run in order, the lists side by side."""
    ids = _ids(first_id)
    for group in _groups(background):
        tasks = [_task(part, next(ids), carrier) for part in group]
        if tasks:
            yield tasks


def _groups(background: Callable[[], object] | None) -> Iterator[list[Callable[[], object]]]:
    """Take apart what is Starlette's own, however it is nested; anything else stays whole."""
    match background:
        case None:
            return
        case InOrder(tasks=tasks):
            yield [part for task in tasks for group in _groups(task) for part in group]
        case BackgroundTasks(tasks=tasks) if type(background) is BackgroundTasks:
            for task in tasks:
                yield from _groups(task)
        case _:
            yield [background]


def _task(part: Callable[[], object], id: str, carrier: str) -> Task:
    if type(part) is BackgroundTask:
        return Task(id, _name(part.func), part.func, part.is_async, part.args, part.kwargs, carrier)
    return Task(id, _name(part), part, is_async=True, carrier=carrier)  # Starlette awaits whatever it is


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _ids(first: str) -> Iterator[str]:
    yield first
    while True:
        yield new_task_id()
