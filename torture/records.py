"""Facts as lines of JSON, appended whole: a kill tears none, a full disk but one."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any


class Book:
    """A file that facts are appended to, each in one write.

    With `synced` they are on disk when `write` returns. What does not fit, because the disk is
    full, is written to a next page: the pages of a book share the name before their dot.
    """

    def __init__(self, directory: Path, name: str, *, synced: bool = False) -> None:
        self._pages = (directory / f"{name}.{number}" for number in count())
        self._synced = synced
        self._lock = threading.Lock()
        self._file = self._next_page()

    def write(self, **facts: object) -> None:
        """Append these facts as one line."""
        line = json.dumps(facts).encode() + b"\n"
        with self._lock:
            while not self._is_written(line):
                os.close(self._file)
                self._file = self._next_page()
            if self._synced:
                os.fsync(self._file)

    def _is_written(self, line: bytes) -> bool:
        with suppress(OSError):
            return os.write(self._file, line) == len(line)
        return False

    def _next_page(self) -> int:
        return os.open(next(self._pages), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def read(directory: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Read the facts of all books whose name begins so; a torn line is none."""
    for path in sorted(directory.glob(f"{kind}*.[0-9]*")):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                yield json.loads(line)
