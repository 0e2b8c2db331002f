"""The seam to whatever traces: what the library tells it, and what it asks of it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from afterwards.brokers import Message
from afterwards.model import Attempt


class Tracing(Protocol):
    """Traces requests, attempts and publications; it never raises."""

    def start(self, *, has_broker: bool, is_consumer: bool = False) -> None:
        """Start tracing; `has_broker` is for a process that publishes, or is a consumer."""

    async def stop(self) -> None:
        """Send what is still to be sent, within a few seconds."""

    def carrier(self, scope: Mapping[str, Any] | None) -> str:
        """Return the trace context of a request, or of the task that runs here, as text.

        It is "" where there is none. The text is stored with each task that is enqueued.
        """

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        """Surround an attempt, whose outcome is set on leaving.

        `is_consumed` says that a broker delivered the task.
        """

    def trace_statements(self, engine: AsyncEngine) -> None:
        """Trace what requests and tasks execute through the engine, unless it bears `sql.OWN`."""

    def tell(self, process: object, state: Mapping[str, float]) -> None:
        """Hear, at every heartbeat, of `queued` and `dead` tasks, and `oldest_waiting` (s)."""

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        """Surround the publishing of a message, and give the carrier that travels with it."""


class NoTracing:
    """Traces nothing."""

    def start(self, *, has_broker: bool, is_consumer: bool = False) -> None:
        pass

    async def stop(self) -> None:
        pass

    def carrier(self, scope: Mapping[str, Any] | None) -> str:
        return ""

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        return _NOTHING

    def trace_statements(self, engine: AsyncEngine) -> None:
        pass

    def tell(self, process: object, state: Mapping[str, float]) -> None:
        pass

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        return nullcontext(message.carrier)


_NOTHING = nullcontext()
NO_TRACING: Tracing = NoTracing()
