"""The seam to whatever traces: what an `Afterwards` tells it, and asks of it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from starlette.types import Scope

from afterwards.brokers import HandOff as Message
from afterwards.model import Attempt


class Tracing(Protocol):
    """Follows requests, attempts and publications; none of it may raise."""

    def start(self, *, has_broker: bool) -> None:
        """Begin; `has_broker` says that messages travel, whose spans are made here."""

    async def stop(self) -> None:
        """Send what there is, within seconds."""

    def carrier(self, scope: Scope | None) -> str:
        """Return the trace context of a request, or, without one, of what runs in this context.

        It is text that is stored with the task; "" if there is none.
        """

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        """Surround an attempt, whose outcome is set on leaving; `is_consumed`: a broker told of it."""

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        """Surround the telling of a broker, and give the carrier that travels with the message."""


class Untraced:
    """Follows nothing."""

    def start(self, *, has_broker: bool) -> None: ...

    async def stop(self) -> None: ...

    def carrier(self, scope: Scope | None) -> str:
        return ""

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        return NOTHING

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        return nullcontext(message.carrier)


NOTHING = nullcontext()
NO_TRACING = Untraced()
