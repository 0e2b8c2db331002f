"""What a response's `background` becomes: rows for task functions, calls in memory for the rest.

Intended differences from Starlette: a function under `@task` becomes a row before anything is
sent, and anything else lives in memory; the tasks of one response run side by side (`InOrder` asks
for one after another), outside of the request and in an empty contextvars context; and one that
fails stops neither its siblings nor the connection that it came in on.
"""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, ParamSpec

from starlette.background import BackgroundTask, BackgroundTasks

from afterwards import registry
from afterwards.errors import NotStorable
from afterwards.model import Task
from afterwards.registry import TaskFunction

P = ParamSpec("P")

Groups = list[list[Task]]  # one list's tasks run in order, the lists side by side


class InOrder(BackgroundTasks):
    """Tasks that run one after another: each starts when the one before has ended for good.

    They are stored if all of them are task functions, and live in memory if none is.
    """


class Later(BackgroundTask):
    """A call of a task function that is not to run before `run_at`."""

    def __init__(
        self, run_at: datetime, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        require_zone(run_at)
        if task_function(function)[0] is None:
            raise ValueError(f"{name_of(function)} is not under @task, and is not kept for later")
        super().__init__(function, *args, **kwargs)
        self.run_at = run_at


def groups_of(
    background: Callable[[], Any] | None, next_id: Callable[[], str], carrier: Callable[[], str]
) -> Groups:
    """List a background's tasks: what is Starlette's own is taken apart, however nested.

    Raises `NotStorable` for a task function that no row can hold as it is attached.
    """
    if background is None:
        return []
    if not isinstance(background, BackgroundTask) or _is_opaque(background):
        return [[_opaque(background, next_id(), carrier())]]
    if not isinstance(background, BackgroundTasks):
        return [[_call(background, next_id(), carrier())]]
    groups = [group for part in background.tasks for group in groups_of(part, next_id, carrier)]
    return _in_order(groups) if isinstance(background, InOrder) else groups


def _in_order(groups: Groups) -> Groups:
    tasks = [task for group in groups for task in group]
    if len({task.stored for task in tasks}) > 1:
        raise NotStorable("an InOrder takes either functions under @task or others, not both")
    for before, after in pairwise(tasks):
        before.is_followed, after.follows = True, before.id
    return [tasks] if tasks else []


def _call(part: BackgroundTask, id: str, carrier: str) -> Task:
    entry, args, kwargs = task_function(part.func)
    if entry is None:
        name = name_of(part.func)
        return Task(id, name, part.func, part.is_async, part.args, part.kwargs, carrier)
    run_at = part.run_at if isinstance(part, Later) else None
    return new_task(entry, (*args, *part.args), {**kwargs, **part.kwargs}, id, carrier, run_at)


def _opaque(background: Callable[[], Any], id: str, carrier: str) -> Task:
    if hidden := task_names(background):
        raise NotStorable(
            f"{hidden[0]} is under @task, but no row can hold it in a {type(background).__name__}, "
            "whose __call__ is its own: attach a BackgroundTask"
        )
    # Starlette awaits whatever it is.
    return Task(id, name_of(background), background, is_async=True, carrier=carrier)


def new_task(
    entry: TaskFunction,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    id: str,
    carrier: str,
    run_at: datetime | None = None,
) -> Task:
    """Make a task that is to be stored."""
    return Task(
        id,
        entry.name,
        entry.function,
        entry.is_async,
        args,
        kwargs,
        carrier,
        policy=entry.policy,
        run_at=run_at,
        stored=True,
    )


def task_function(
    function: Callable[..., Any],
) -> tuple[TaskFunction | None, tuple[Any, ...], dict[str, Any]]:
    """Find what `@task` registered, and the arguments that a `functools.partial` has for it.

    Raises `NotStorable` where the function under `@task` is hidden in something else.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    entry = registry.of_function(function)
    if entry is None and (hidden := _hidden(function)) is not None:
        raise NotStorable(
            f"{name_of(function)} hides {hidden.name}, which is under @task: "
            "put @task outermost, and on no method of an object"
        )
    return entry, args, kwargs


def task_names(background: object) -> list[str]:
    """List the names of the task functions that the background holds, however it does."""
    return list(_functions(background))


def name_of(function: object) -> str:
    """Name whatever can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def require_zone(run_at: datetime) -> None:
    """Raise ValueError for a moment that may be any of twenty-four."""
    if run_at.tzinfo is None:
        raise ValueError("run_at must say its time zone: datetime.now(UTC) + timedelta(hours=1)")


def _hidden(function: Callable[..., Any]) -> TaskFunction | None:
    """Find what is registered below a bound method or a decorator that used functools.wraps."""
    inner = getattr(function, "__func__", None) or getattr(function, "__wrapped__", None)
    if inner is None:
        return None
    return registry.of_function(inner) or _hidden(inner)


def _is_opaque(background: BackgroundTask) -> bool:
    """Tell whether the background's class says itself what a call of it does.

    FastAPI's own only adds telemetry.
    """
    call = type(background).__call__
    if type(background).__module__ == "fastapi.background":
        return False
    return call not in (BackgroundTask.__call__, BackgroundTasks.__call__)


def _functions(background: object) -> Iterator[str]:
    for part in getattr(background, "tasks", ()):
        yield from _functions(part)
    function = getattr(background, "func", None)
    while isinstance(function, functools.partial):
        function = function.func
    if callable(function) and (entry := registry.of_function(function) or _hidden(function)):
        yield entry.name
