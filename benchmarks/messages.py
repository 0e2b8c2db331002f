"""The messages in a queue of RabbitMQ: how many wait, and how fast they come or go."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection

POLL_SECONDS, PATIENCE_SECONDS = 0.02, 20


class Queue:
    """A queue as Celery declares it, seen from outside."""

    def __init__(self, channel: Any, name: str) -> None:
        self._channel = channel
        self._name = name

    def waiting(self) -> int:
        """Count the messages that no worker has been given."""
        declared = self._channel.queue_declare(queue=self._name, durable=True, auto_delete=False)
        count: int = declared.message_count
        return count

    def empty(self) -> None:
        """Forget what waits: a worker that ends gives back what it had been given too early."""
        self.waiting()  # which declares it
        self._channel.queue_purge(self._name)

    def rate_until(self, end: int) -> float:
        """Wait until `end` messages wait, or were passed; return how many came or went a second.

        The first tenth is not counted, so a worker's start is none of it. What takes longer than
        patience lasts is judged by what it did meanwhile.
        """
        start, deadline = self.waiting(), time.monotonic() + PATIENCE_SECONDS
        seen: list[tuple[float, int]] = []
        while (end - (now := self.waiting())) * (end - start) > 0:
            if abs(now - start) >= abs(end - start) / 10:
                seen.append((time.monotonic(), now))
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        assert len(seen) > 1, f"not {end} but {now} messages wait in {self._name}"
        (since, first), (until, last) = seen[0], seen[-1]
        return abs(last - first) / (until - since)


@contextmanager
def queue(url: str, name: str) -> Iterator[Queue]:
    """Open the queue of this name at the broker."""
    with Connection(url) as connection:
        yield Queue(connection.default_channel, name)
