"""Where attempts run: the verbs that every engine has."""

from collections.abc import Sequence
from typing import Protocol

from durable.model import Task


class Engine(Protocol):
    """Runs what it is given, without ever making its caller wait."""

    def start(self, sequences: Sequence[Sequence[Task]]) -> None:
        """Start the sequences side by side, and the tasks of one sequence one after another."""

    async def drain(self, seconds: float) -> None:
        """Let what was started end for so many seconds, then cut off the rest and name it in the log."""

    def load(self) -> dict[str, int]:
        """Count the tasks that are `running` and those that are `waiting` for a free slot."""
