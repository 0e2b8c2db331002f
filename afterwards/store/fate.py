"""What becomes of what a caller wrote in its own transaction: kept, undone, or not known yet."""

from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection


class Fate:
    """Whether the transaction is still open, and whether it, or its savepoint, was rolled back."""

    __slots__ = ("is_open", "is_undone")

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.is_undone = False

    def end(self, *, is_undone: bool) -> None:
        """Note how it ended."""
        self.is_open, self.is_undone = False, is_undone


KEPT = Fate(is_open=False)


def follow(connection: AsyncConnection) -> Fate:
    """Learn what becomes of what was just written there, as far as it is in this process."""
    within = connection.sync_connection
    assert within is not None
    written = _written.get(within)
    if written is None:
        written = _written[within] = []
        event.listen(within, "commit", _committed)
        event.listen(within, "rollback", _rolled_back)
        event.listen(within, "savepoint", _saved)
        event.listen(within, "release_savepoint", _released)
        event.listen(within, "rollback_savepoint", _rolled_back_to)
    fate = Fate()
    written.append(fate)
    return fate


# In the order in which they came, with None for the beginning of each savepoint that is open.
_written: WeakKeyDictionary[Connection, list[Fate | None]] = WeakKeyDictionary()


def _committed(connection: Connection) -> None:
    _end(connection, 0, is_undone=False)


def _rolled_back(connection: Connection) -> None:
    _end(connection, 0, is_undone=True)


def _saved(connection: Connection, name: str | None) -> None:
    _written[connection].append(None)


def _released(connection: Connection, name: str, context: object) -> None:
    written = _written[connection]
    if None in written:
        written.reverse()
        written.remove(None)
        written.reverse()


def _rolled_back_to(connection: Connection, name: str, context: object) -> None:
    # The name was not known when the savepoint began. Of several, the outermost: an id that is not
    # announced is better than one without a row. One that is not there began before all of this.
    written = _written[connection]
    _end(connection, written.index(None) if None in written else 0, is_undone=True)


def _end(connection: Connection, first: int, *, is_undone: bool) -> None:
    written = _written[connection]
    for fate in written[first:]:
        if fate is not None:
            fate.end(is_undone=is_undone)
    del written[first:]
