"""The file of an SQLite database as it was opened, to notice when it is another one or none.

Whoever deletes or replaces it leaves us with a file that has no name: commits succeed there, and
end with the process.
"""

import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

Identity = tuple[int, int] | None  # a device and an inode, or no file at all


class SQLiteFile:
    """The database at `path` with its log and its index; others may hold it for `timeout` (s)."""

    def __init__(self, path: str, timeout: float) -> None:
        self._paths = [path + suffix for suffix in ("", "-wal", "-shm")]
        self._timeout = timeout
        self._anchor: sqlite3.Connection | None = (
            None  # with it open SQLite itself deletes neither log nor index
        )
        self._opened: list[Identity] = []

    def open(self) -> None:
        """Make the file and its directory, if need be, and keep it open; raise `sqlite3.Error`."""
        if self._anchor is not None:
            return
        Path(self._paths[0]).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keep_others_out()
        anchor = sqlite3.connect(self._paths[0], isolation_level=None, check_same_thread=False)
        try:
            self._switch(anchor)
            anchor.execute(
                "SELECT 1 FROM sqlite_master"
            ).close()  # only a statement makes log and index
        except BaseException:
            anchor.close()
            raise
        self._opened = self._identities()
        self._anchor = anchor

    def is_there(self) -> bool:
        """Tell whether there is a file at all."""
        return os.path.exists(self._paths[0])

    def is_lost(self) -> bool:
        """Tell whether other files, or none, have taken the place of those that were opened."""
        return self._anchor is not None and self._identities() != self._opened

    def close(self) -> None:
        """Keep it open no more."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    def _keep_others_out(self) -> None:
        """Make the file for its owner alone, before SQLite makes its log and its index like it.

        From one that is there access is taken from everybody; its group may have it on purpose.
        """
        with suppress(OSError):  # most of all because it is there; SQLite says what else is wrong
            os.close(os.open(self._paths[0], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        for path in self._paths:
            with suppress(OSError):  # it is not there, or another's
                mode = stat.S_IMODE(os.stat(path).st_mode)
                if mode & stat.S_IRWXO:
                    os.chmod(path, mode & ~stat.S_IRWXO)

    def _switch(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute(
                    "PRAGMA auto_vacuum=INCREMENTAL"
                ).close()  # before the first table, or never
                connection.execute("PRAGMA journal_mode=WAL").close()  # both stay in the file
                return
            except (
                sqlite3.OperationalError
            ):  # another process switches too: SQLite does not wait for that by itself
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _identities(self) -> list[Identity]:
        return [_identity(path) for path in self._paths]


def _identity(path: str) -> Identity:
    with suppress(OSError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None
