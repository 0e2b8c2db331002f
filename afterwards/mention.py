"""What is said of a task outside of its attempts: the lines bear its id, and its trace's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from afterwards.attempt import current_task_id

# What gives the trace context of the task that is spoken of here, in the form of its carrier.
mentioned: ContextVar[Callable[[], str] | None] = ContextVar("mentioned", default=None)


@contextmanager
def about(id: str, carrier: str) -> Iterator[None]:
    """Have the lines that are written within bear the task's id, and its trace's."""
    task, trace = current_task_id.set(id), mentioned.set(lambda: carrier)
    try:
        yield
    finally:
        current_task_id.reset(task)
        mentioned.reset(trace)
