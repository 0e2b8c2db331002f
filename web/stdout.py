"""Writes log lines to stdout: at once, or many together where many come."""

import logging
import os
import select
import threading
import time
from io import UnsupportedOperation
from typing import TextIO

# What requests and attempts tell at INFO. Any other line is written at once, and with it whatever
# waits: a process ends with others' words, or with an error.
FREQUENT = frozenset({"uvicorn.access", "tasks"})
# So many of them a second are written at once as well: but under load the log has all that was told
# before a SIGKILL, or before a C function that never lets go of the interpreter's lock.
AT_ONCE = 100
# The others wait so long for each other. A write costs as much as the rest of a line, and more
# where the database's thread takes the interpreter's lock meanwhile.
GATHERING_SECONDS = 0.02
MOST_WAITING = 2_000  # lines; beyond that whoever has one waits for the reader of stdout


class Gathering(logging.Handler):
    """Writes lines in their order, each of them whole."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._at_once_in = (0, 0)  # a second, and how many of its lines were
        self._begin()
        os.register_at_fork(after_in_child=self._begin_in_child)

    def createLock(self) -> None:
        self.lock = None  # formatting needs none, and appending to a list neither

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
            if not self._may_wait(record):
                self.flush()
            elif not self._is_waiting.is_set():
                self._wake()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits, and return when it is written, by whomever."""
        with self._writing:
            lines = self._lines[:]
            del self._lines[: len(lines)]
            if lines:
                _write(self._stream, "\n".join([*lines, ""]))

    def close(self) -> None:
        """Write what waits, and from now on each line at once."""
        self._gathers = False
        self.flush()
        super().close()

    def _begin(self, *, gathers: bool = True) -> None:
        self._lines: list[str] = []
        self._writing = threading.RLock()  # a signal's handler may log amid the writing
        self._is_waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._gathers = gathers

    def _begin_in_child(self) -> None:
        # What waits is its parent's to write. Celery ends its children with os._exit.
        self._begin(gathers=False)

    def _may_wait(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO or record.name not in FREQUENT:
            return False
        second, count = self._at_once_in
        if second != (now := int(record.created)):
            second, count = now, 0
        if count < AT_ONCE and not self._is_waiting.is_set():
            self._at_once_in = second, count + 1
            return False
        return self._gathers and len(self._lines) < MOST_WAITING

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
            self._thread.start()
        self._is_waiting.set()

    def _write_on(self) -> None:
        while self._is_waiting.wait():
            time.sleep(GATHERING_SECONDS)
            try:
                # Once the interpreter ends, a thread can stop with the lock in its hands.
                if self._lines:
                    self.flush()
            except Exception:
                self.handleError(logging.makeLogRecord({"name": "log"}))
            self._is_waiting.clear()
            if self._lines:  # come since
                self._is_waiting.set()


def _write(stream: TextIO, text: str) -> None:
    """Write all of it, however little the stream takes at a time; text that it lacks as escapes."""
    try:
        descriptor = stream.fileno()
    except UnsupportedOperation:  # a test's
        stream.write(text)
        return
    stream.flush()  # what others have printed
    rest = memoryview(text.encode(stream.encoding, "backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # whoever shares the descriptor may have made it so
            select.select((), (descriptor,), ())
