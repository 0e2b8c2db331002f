"""A real uvicorn in a process of its own, to be asked, watched and stopped by a test."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

# A test's server starts from these alone, so that nothing in the developer's shell reaches it.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")


class Server:
    """A server process; `log()` is what it has written so far, on stdout and stderr together."""

    def __init__(self, command: Sequence[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.wait_for_log(r"Uvicorn running on http://[\d.]+:(\d+)")[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return "".join(self._lines)

    def wait_for_log(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """Wait until the log matches the pattern; raise AssertionError with the log if it never does."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                if found := re.search(pattern, self.log()):
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or (self._lines[-1:] == [""]):
                    raise AssertionError(f"{pattern!r} is not in the log:\n{self.log()}")
                self._changed.wait(left)

    def stop(self, sign: int = signal.SIGTERM, seconds: float = 40) -> float:
        """Send the signal and wait for the end; return the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(sign)
        self.process.wait(seconds)
        self._reader.join(5)
        return time.monotonic() - began

    def kill(self) -> None:
        """Kill the process and its workers, which would outlive it and keep its output open."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._add(line)
        self._add("")  # the end: whoever waits for a line waits in vain

    def _add(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()


def start(
    directory: Path,
    *,
    app: str = "asgi_app:app",
    command: Sequence[str] = ("uvicorn",),
    args: Sequence[str] = (),
    **variables: str,
) -> Server:
    """Start `command app --port 0 args` with its database and images in `directory` and these environment variables.

    The first word of `command` is looked up beside this interpreter. The server may not be listening yet: `url` waits.
    """
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ["PATH"] = f"{BIN}{os.pathsep}{environ.get('PATH', '')}"
    environ["PYTHONUNBUFFERED"] = "1"
    environ["DATABASE_URL"] = f"sqlite:///{directory}/service.db"
    environ["IMAGES_DIR"] = f"{directory}/images"
    environ.update(variables)
    words = [str(BIN / command[0]), *command[1:], *([app] if app else []), *(["--port", "0"] if app else []), *args]
    return Server(words, environ)
