"""What can go wrong with a task, apart from what its function raises.

AfterwardsError
  ArgumentsRefused       they do not fit the task function, when enqueued or when loaded
  SecretsUnreadable      they are encrypted, and no key here reads them
  UnknownTask            no task function has this name (any more), or the function has no name
  NotStorable            a background that holds a task function in a way that no row can
  NotStarted             nothing runs that could accept tasks
  Refused                an HTTPException, so that any application answers it as it says
    DatabaseUnavailable  nothing was changed
      OutcomeUnknown     whether anything was changed is not known
    Overloaded           too many tasks wait
    KeyReused            an Idempotency-Key came with another request before, or is none
    KeyIsUnderWay        the first request with this Idempotency-Key has not been answered yet
    CutOff               the process ends, and waits for the request no longer
"""

from http import HTTPStatus

from starlette.exceptions import HTTPException

RETRY_SECONDS = 5  # a restart of a database takes about as long


class AfterwardsError(Exception):
    """The root of this tree."""


class ArgumentsRefused(AfterwardsError):
    """The arguments do not fit the task function's parameters; the text says which and why."""


class SecretsUnreadable(AfterwardsError):
    """A task's secret arguments are encrypted with a key that is not here; the row keeps them."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"its secret arguments are encrypted, and {why}: bring the key back, then retry it"
        )


class UnknownTask(AfterwardsError):
    """No task function is registered under this name; deploy one that is, then retry the task."""


class NotStorable(AfterwardsError, TypeError):
    """A task function is attached in a way that no row can hold; the text says how to attach it."""


class NotStarted(AfterwardsError, RuntimeError):
    """Nothing runs that could accept tasks."""

    def __init__(self) -> None:
        super().__init__(
            "this Afterwards was never started, so nothing was accepted: its application's "
            "lifespan did not run. Serve it with its lifespan (uvicorn does; TestClient in a with "
            "block), or await start() and stop() yourself"
        )


class Refused(AfterwardsError, HTTPException):
    """The request is answered with `status`; `reason` is for the log, the answer says `advice`."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    advice = ""
    retry_after: int | None = RETRY_SECONDS  # seconds

    def __init__(self, reason: str = "") -> None:
        headers = None if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        advice = self.advice or f"Idempotency-Key: {reason}."
        HTTPException.__init__(self, self.status, advice, headers)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class DatabaseUnavailable(Refused):
    """The database cannot be reached or cannot write; nothing was changed."""

    advice = "The database cannot be reached; nothing was done. Send the request again later."


class OutcomeUnknown(DatabaseUnavailable):
    """The database was lost while it committed: whether anything was changed is not known."""

    advice = (
        "The database was lost while it committed, and whether anything was done is not known. "
        "Look before you send the request again; "
        "with an Idempotency-Key it can be sent again without a look."
    )


class Overloaded(Refused):
    """Too many tasks wait; nothing was accepted, come back after `retry_after` seconds."""

    advice = "Too many tasks wait; nothing was accepted. Retry-After says when to come back."

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"too many tasks wait; some will have ended in {retry_after} s")


class KeyReused(Refused):
    """The Idempotency-Key cannot be used for this request; the text says why."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    retry_after = None


class KeyIsUnderWay(Refused):
    """The first request with this Idempotency-Key has not been answered yet."""

    status = HTTPStatus.CONFLICT
    retry_after = 1


class CutOff(Refused):
    """The process ends, and waits for the request no longer."""

    advice = (
        "The service is being stopped, and ran out of time for this request; "
        "whether anything was done is not known. Look before you send it again; "
        "with an Idempotency-Key it can be sent again without a look."
    )
