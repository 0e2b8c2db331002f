"""A real uvicorn in a process of its own, to be asked, watched and stopped by a test."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from afterwards.store.database import Database

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

# A test's server starts from these alone, so that nothing in the developer's shell reaches it.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")


class Server:
    """A server process; `log()` is what it has written so far, on stdout and stderr together."""

    def __init__(
        self, command: Sequence[str], environ: dict[str, str], directory: Path = ROOT
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=directory,
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
        """Wait until the log matches the pattern; raise AssertionError with it if it never does."""
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
    """Start `command app --port 0 args` with these environment variables.

    Its database and images are in `directory`; the first word of `command` is a program beside this
    interpreter. The server may not be listening yet: `url` waits.
    """
    where = [app, "--port", "0"] if app else []
    return Server(
        [str(BIN / command[0]), *command[1:], *where, *args], environment(directory, variables)
    )


def environment(directory: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server whose database and images are in `directory`."""
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ["PATH"] = f"{BIN}{os.pathsep}{environ.get('PATH', '')}"
    environ["PYTHONUNBUFFERED"] = "1"
    environ["DEVELOPMENT"] = "1"  # a test is an operator on this machine
    environ["ALLOWED_HOSTS"] = "*"  # and says whatever it likes
    environ["DATABASE_URL"] = f"sqlite:///{directory}/service.db"
    environ["IMAGES_DIR"] = f"{directory}/images"
    environ.update(variables)
    return environ


def until(condition: Callable[[], T], seconds: float) -> T:
    """Ask until the condition holds, and return what it gave; AssertionError after so long."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, (
            f"not within {seconds:g} s; the last answer was {answer!r}"
        )
        time.sleep(0.05)
    return answer


def until_health(server: Server, status: int) -> dict[str, Any]:
    """Wait until `/health` has this status, which follows the heartbeat; return what it says."""
    said: list[httpx.Response] = []

    def has_status() -> bool:
        said[:] = [httpx.get(f"{server.url}/health", timeout=30)]
        return said[0].status_code == status

    until(has_status, 30)
    body: dict[str, Any] = said[0].json()
    return body


OUR_TABLES = re.compile(
    r"\b(FROM|INTO|UPDATE|JOIN|TABLE|ANALYZE|ON) (tasks|workers|answers|changes)\b"
)
BRACES = re.compile("[{}]")


def sql(database_url: str, statement: str, **values: object) -> list[Any]:
    """Execute the statement in a transaction of its own, beside the service's, and return its rows.

    In it `tasks`, `workers` and `answers` are the tables that bear the prefix.
    """

    async def execute() -> list[Any]:
        database = Database(database_url)
        is_read = statement.startswith("SELECT")
        prefixed = database.sql(OUR_TABLES.sub(r"\1 {\2}", BRACES.sub(r"\g<0>\g<0>", statement)))
        try:
            async with database.reading() if is_read else database.transaction() as connection:
                result = await connection.execute(prefixed, values)
                return list(result.all()) if result.returns_rows else []
        finally:
            await database.close()

    return asyncio.run(execute())


JSON = {"Content-Type": "application/json"}


class Load:
    """Clients that post until they are stopped, each over its own kept connection.

    `accepted` holds the ids of the tasks whose answer was a 2xx, `statuses` counts the answers. A
    client whose connection breaks stops by itself.
    """

    def __init__(self, url: str, path: str, body: object = None, clients: int = 8) -> None:
        self.accepted: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._netloc, self._path, self._body = urlsplit(url).netloc, path, json.dumps(body)
        self._is_stopped = threading.Event()
        self._threads = [threading.Thread(target=self._post, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Let the clients end with the answer they wait for; return the accepted tasks' ids."""
        self._is_stopped.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.accepted

    def _post(self) -> None:
        connection = http.client.HTTPConnection(self._netloc, timeout=20)
        with suppress(OSError, http.client.HTTPException):
            while not self._is_stopped.is_set():
                connection.request("POST", self._path, self._body, JSON)
                response = connection.getresponse()  # its head has come: it counts
                ids = response.headers.get("task-id", "")
                self.statuses[response.status] += 1
                if response.status < 300:
                    self.accepted.extend(ids.split(", "))
                response.read()
        connection.close()
