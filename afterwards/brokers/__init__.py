"""Where attempts run: the verbs that every engine has, and those of a broker, which tells engines elsewhere."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from afterwards.model import Attempt, Task
from afterwards.turns import Free

Ended = Callable[[Attempt], Awaitable[None]]


async def forgotten(attempt: Attempt) -> None:
    """Keep nothing of an attempt that has ended: that of a task which lives in memory only."""


class Engine(Protocol):
    """Runs what it is given, without ever making its caller wait."""

    def start(self, sequences: Sequence[Sequence[Task]], ended: Ended = forgotten) -> None:
        """Start the sequences side by side, and the tasks of one sequence one after another.

        `ended` is awaited with each attempt, while it still has its slot.
        """

    def free(self, *, in_thread: bool) -> int:
        """Count the slots that nothing has taken or waits for."""

    def free_for_suspects(self) -> Free:
        """Count how many more tasks may be started that have one crash behind them, and that have more."""

    def stored(self) -> dict[str, int]:
        """Give the ids of the stored tasks that were started and have not ended, each with its attempt's number."""

    def cancel(self, id: str) -> None:
        """Cut off the task, if it runs here and can be."""

    async def drain(self, seconds: float, cut_off: Callable[[Task], None]) -> None:
        """Let what was started end for so many seconds, then tell `cut_off` of the rest, and cut it off."""

    def load(self) -> dict[str, int]:
        """Count the tasks that are `running` and those that are `waiting` for a free slot."""


class HandOff(NamedTuple):
    """What a broker is told of a stored task."""

    id: str
    name: str
    carrier: str


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or does not take what it is given; nothing is lost, because the rows are there."""


class Broker(Protocol):
    """Tells engines in other processes of tasks; it may lose, repeat and delay what it is told."""

    address: str  # host:port, for people

    def send(self, batch: Sequence[HandOff]) -> None:
        """Hand off the tasks, or only look whether the broker is there; raise `BrokerUnavailable`.

        It blocks, and is called by one thread at a time.
        """

    def is_empty(self) -> bool:
        """Tell whether no message waits there; raise `BrokerUnavailable`. Called as `send` is."""
