"""Workers elsewhere, as the processes see it that publish tasks for them."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple, Protocol

KINDS = re.compile(r"(amqps?|rediss?)://[^/]|sqs://")


class Message(NamedTuple):
    """What a broker is told of a stored task."""

    id: str
    name: str
    carrier: str
    queue: str = ""  # where the broker keeps it


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or refuses messages; nothing is lost: the rows are there."""


class Broker(Protocol):
    """Tells workers in other processes of tasks; it may lose, repeat and delay what it is told.

    Its methods block, and are called by one thread at a time.
    """

    address: str  # host:port, for people

    def publish(self, batch: Sequence[Message]) -> None:
        """Publish the messages; raise `BrokerUnavailable`, also where there are none."""

    def is_empty(self) -> bool:
        """Return whether no message waits there; raise `BrokerUnavailable`."""


def check_broker(url: object) -> None:
    """Raise a ValueError that says what is wrong with a broker's URL, if anything is."""
    if not isinstance(url, str) or not KINDS.match(url):
        raise ValueError("broker: takes amqp://, redis:// or sqs://")
    if find_spec("celery") is None:
        raise ValueError("broker: takes the package too: pip install 'afterwards[celery]'")
