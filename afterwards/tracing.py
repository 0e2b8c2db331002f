"""The seam to whatever traces: all that the library's core knows of it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from starlette.types import Scope

from afterwards.brokers import HandOff as Message
from afterwards.model import Attempt


class Tracing(Protocol):
    """Traces requests, attempts and publications; none of it may fail its caller."""

    def start(self, *, has_broker: bool) -> None:
        """Start tracing; `has_broker` says that this process publishes to a broker, or consumes."""

    async def stop(self) -> None:
        """Send what is left within a few seconds, and stop tracing."""

    def carrier(self, scope: Scope | None) -> str:
        """Return the trace context of a request, or with None that of the task that runs here.

        It is text that is stored with the tasks which they enqueue; "" if there is none.
        """

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        """Surround an attempt, whose outcome is set on leaving; a consumed one came by a broker."""

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        """Surround a publication to the broker there, and give the carrier that travels with it."""


class _NoTracing:
    def start(self, *, has_broker: bool) -> None: ...

    async def stop(self) -> None: ...

    def carrier(self, scope: Scope | None) -> str:
        return ""

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        return _NOTHING

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        return nullcontext(message.carrier)


_NOTHING = nullcontext()
NO_TRACING: Tracing = _NoTracing()
