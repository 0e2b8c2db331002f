"""The processes under torture: real uvicorns on one database, restarted whenever they end."""

import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from afterwards.store.failures import DatabaseUnavailable
from tests import serving
from tests.proxy import Proxy
from torture.records import Book

Door = tuple[str, int]

OPEN_STATES = ("queued", "running", "retrying")
DRAIN_SECONDS = 2  # less than some tasks sleep, so that a deploy cuts some off
ASK_SECONDS = 20


class House:
    """Some processes on one database, each behind a proxy of its own if that is a server."""

    def __init__(self, directory: Path, database_url: str, processes: int) -> None:
        self.directory, self.database_url = directory, database_url
        count = 0 if database_url.startswith("sqlite") else processes
        self.proxies = [Proxy(database_url) for _ in range(count)]
        self.events = Book(directory, "events", synced=True)
        self._token = secrets.token_hex(16)
        self._ports = [_free_port() for _ in range(processes)]
        self._doors: list[Door | None] = [None] * processes
        self._servers: list[serving.Server | None] = [None] * processes
        self._asked: set[int] = set()  # the pids that were told to end
        self.size = processes
        self._is_closing = threading.Event()
        self._keepers = [
            threading.Thread(target=self._keep, args=(number,), daemon=True)
            for number in range(processes)
        ]

    def __enter__(self) -> Self:
        for keeper in self._keepers:
            keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing.set()
        for server in filter(None, self._servers):
            server.process.kill()
        for keeper in self._keepers:
            keeper.join()
        for proxy in self.proxies:
            proxy.__exit__()

    def doors(self) -> list[Door]:
        """List where a client may knock."""
        return [door for door in self._doors if door]

    def pid(self, number: int) -> int | None:
        """Return the pid of the process, unless it is just starting."""
        server = self._servers[number]
        return server.pid if server and self._doors[number] else None

    def end(self, number: int, sign: signal.Signals) -> bool:
        """Tell the process to end, and return whether there was one; it is started again."""
        pid, server = self.pid(number), self._servers[number]
        if pid and server:
            self._asked.add(pid)
            self._doors[number] = None
            server.process.send_signal(sign)
        return pid is not None

    def ask(self, path: str) -> Any:
        """Ask any process, as the operator; raise OSError or HTTPException without an answer."""
        host, port = (self.doors() or [("127.0.0.1", 9)])[0]
        connection = HTTPConnection(host, port, timeout=ASK_SECONDS)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise HTTPException(f"{path}: {response.status}")
            return json.loads(body)
        finally:
            connection.close()

    def tasks(self, state: str) -> Iterator[dict[str, Any]]:
        """List the tasks in this state, as the operator sees them."""
        path: str | None = f"/tasks?state={state}&limit=1000"
        while path:
            answer = self.ask(path)
            yield from answer["tasks"]
            path = answer["next"]

    def users(self) -> Iterator[str]:
        """List the names of all users."""
        after = 0
        while page := self.ask(f"/users/?limit=1000&after={after}"):
            yield from (user["username"] for user in page)
            after = page[-1]["id"]

    def is_idle(self) -> bool:
        """Tell whether no task is open, and somebody answers."""
        # All states at once: a task may turn from one to the other between two.
        query = f"SELECT 1 FROM tasks WHERE state IN {OPEN_STATES} LIMIT 1"
        with ThreadPoolExecutor(1) as thread, suppress(OSError, HTTPException, DatabaseUnavailable):
            is_open = thread.submit(serving.sql, self.database_url, query).result()
            return not is_open and bool(self.ask("/tasks?limit=1"))
        return False

    def _keep(self, number: int) -> None:
        while not self._is_closing.is_set():
            self._servers[number] = server = self._start(number)
            if self._listens(server, number):
                self._doors[number] = ("127.0.0.1", self._ports[number])
            server.process.wait()
            ended = time.monotonic()
            self._doors[number] = None
            asked = server.pid in self._asked or self._is_closing.is_set()
            code = server.process.returncode
            self.events.write(what="ended", pid=server.pid, at=ended, code=code, asked=asked)
            server.kill()
            (self.directory / f"log-{server.pid}").write_text(server.log())

    def _listens(self, server: serving.Server, number: int) -> bool:
        """Wait until the process can be reached, or has ended before it could be."""
        while server.process.poll() is None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self._ports[number]), 1).close()
                return True
            time.sleep(0.05)
        return False

    def _start(self, number: int) -> serving.Server:
        port = self._ports[number]
        return serving.start(
            self.directory,
            app="torture.app:app",
            args=f"--port {port} --no-access-log --timeout-graceful-shutdown 5".split(),
            DATABASE_URL=self.proxies[number].url if self.proxies else self.database_url,
            TORTURE_DIRECTORY=f"{self.directory}",
            ADMIN_TOKEN=self._token,
            DRAIN_SECONDS=f"{DRAIN_SECONDS}",
            LOG_LEVEL="WARNING",
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
