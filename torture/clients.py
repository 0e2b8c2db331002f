"""Clients that ask without pause, and write each answer into a file of their own, fsynced."""

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from torture.house import Door, House
from torture.records import Book
from torture.shapes import SHAPES

PATIENCE_SECONDS = 12  # longer than an answer takes, unless its process is frozen
NO_ANSWER = 0
KEYED = 0.25  # the share of requests that bear an Idempotency-Key
TRIES = 4  # of one such request
KILLER_SECONDS = 15.0
WEIGHTS = [shape.weight for shape in SHAPES.values()]


class Client(threading.Thread):
    """One client: it knocks at any door that is open, with one request after another."""

    def __init__(self, house: House, number: int, seed: int) -> None:
        super().__init__(name=f"client-{number}")
        self._house, self._number = house, number
        self._random = random.Random(f"{seed} {number}")
        self._answers = Book(house.directory, f"answers-{number}", synced=True)
        self._connections: dict[Door, HTTPConnection] = {}
        self._is_stopped = threading.Event()
        self.count = 0

    def stop(self) -> None:
        """End with the answer that it waits for."""
        self._is_stopped.set()

    def run(self) -> None:
        while not self._is_stopped.is_set():
            if self._house.doors():
                self.ask(*self._random.choices(list(SHAPES), WEIGHTS))
            else:
                self._is_stopped.wait(0.05)

    def ask(self, name: str) -> None:
        """Ask for tasks of this shape, with or without a key."""
        self.count += 1
        token = f"c{self._number}-{self.count}"
        order = {"token": token, "seconds": round(self._random.uniform(0, SHAPES[name].seconds), 3)}
        send: Callable[..., int] = lambda doors, **headers: self._send(name, order, doors, headers)  # noqa: E731
        if self._random.random() < KEYED:
            self._ask_with_key(send, {"Idempotency-Key": f"{token}-{secrets.token_hex(4)}"})
        else:
            send([self._own_door()])

    def _ask_with_key(self, send: Callable[..., int], key: dict[str, str]) -> None:
        """Send one request at two doors at once, or twice at one; then until it is accepted."""
        send([self._own_door(), self._door()], **key)
        for _ in range(TRIES):
            if 200 <= send([self._own_door()], **key) < 300 or self._is_stopped.wait(0.1):
                return

    def _own_door(self) -> Door:
        """Choose the same door each time: a frozen process then holds up its own clients alone."""
        doors = self._house.doors()
        return doors[self._number % len(doors)] if doors else self._door()

    def _door(self) -> Door:
        return self._random.choice(self._house.doors() or [("127.0.0.1", 9)])

    def _send(
        self, name: str, order: dict[str, object], doors: Sequence[Door], headers: dict[str, str]
    ) -> int:
        """Send to all these doors before reading an answer; return the last answer's status."""
        body, status = json.dumps(order), NO_ANSWER
        asked = [(door, *self._asked(door, f"/torture/{name}", body, headers)) for door in doors]
        for door, sent, connection in asked:
            status, ids, told = self._answer(door, connection)
            got = time.monotonic()
            answer = {"sent": sent, "got": got, "status": status, "ids": ids, "told": told}
            self._answers.write(**order, shape=name, key=bool(headers), **answer)
        return status

    def _asked(
        self, door: Door, path: str, body: str, headers: dict[str, str]
    ) -> tuple[float, HTTPConnection | None]:
        """Send the request, and return when, and over what its answer will come."""
        sent, connection = time.monotonic(), self._connections.pop(door, None)
        connection = connection or HTTPConnection(*door, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", path, body, headers)
        except (OSError, HTTPException):
            connection.close()
            return sent, None
        return sent, connection

    def _answer(self, door: Door, connection: HTTPConnection | None) -> tuple[int, str, str]:
        """Wait for the answer; return its status, the tasks' ids, and what a refusal says."""
        if connection is None:
            return NO_ANSWER, "", ""
        try:
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            connection.close()
            return NO_ANSWER, "", repr(error)
        told = ""
        with suppress(OSError, HTTPException):  # its head has come: it counts
            told = response.read().decode()
            self._connections[door] = connection
        ids = response.headers.get("Task-Id", "")
        return response.status, ids, "" if response.status < 300 else told


class Killers(Client):
    """A client whose tasks take their process down; it lets the house recover in between."""

    def run(self) -> None:
        while not self._is_stopped.wait(KILLER_SECONDS):
            if self._house.doors():
                self.ask("killer")
