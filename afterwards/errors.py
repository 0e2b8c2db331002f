"""What can go wrong with a task, apart from what its function raises.

DurableError
  ArgumentsRefused   they do not fit the task function, when enqueued or when loaded UnknownTask
  no task function has this name (any more) KeyReused          an Idempotency-Key came with another
  request before, or is none KeyIsUnderWay      the first request with this Idempotency-Key has not
  been answered yet CutOff             the process ends, and waits for the request no longer
  Overloaded         too many tasks wait: nothing was accepted, come back after `retry_after`
  seconds
"""


class DurableError(Exception):
    """The root of this tree."""


class ArgumentsRefused(DurableError):
    """The arguments do not fit the task function's parameters; the text says which and why."""


class UnknownTask(DurableError):
    """No task function is registered under this name; deploy one that is, then retry the task."""


class KeyReused(DurableError):
    """The Idempotency-Key cannot be used for this request; the text says why."""


class KeyIsUnderWay(DurableError):
    """The first request with this Idempotency-Key has not been answered yet."""


class CutOff(DurableError):
    """The process ends, and waits for the request no longer."""


class Overloaded(DurableError):
    """Too many tasks wait; nothing was accepted."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many tasks wait; some will have ended in {retry_after} s")
        self.retry_after = retry_after
