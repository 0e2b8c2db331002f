"""Clients for what wrk cannot measure: single answers to the microsecond, open connections."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from tests import serving

AT_ONCE = 64
TICKS = os.sysconf("SC_CLK_TCK")
REQUEST = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Answered(NamedTuple):
    """One answer, and the moments of its request and of its last byte.

    In ns, by the clock that all processes share.
    """

    asked: int
    came: int
    text: str

    @property
    def milliseconds(self) -> float:
        return (self.came - self.asked) / 1e6


class Client:
    """One kept connection with one request at a time; no event loop adds to the time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str) -> Answered:
        """Ask, and raise RuntimeError for any answer but a 2xx."""
        request = REQUEST.format(path).encode()
        asked = time.monotonic_ns()
        self._socket.sendall(request)
        head, _, body = self._socket.recv(65536).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{path} was answered with {head.decode() or 'a closed connection'}")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65536)
        return Answered(asked, time.monotonic_ns(), body.decode())

    def close(self) -> None:
        self._socket.close()


@contextmanager
def client_of(server: serving.Server) -> Iterator[Client]:
    """Connect to the server."""
    client = Client(server.port)
    try:
        yield client
    finally:
        client.close()


class Connection(NamedTuple):
    """One of many connections of one event loop."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str) -> str:
        self.writer.write(REQUEST.format(path).encode())
        # Every answer is one JSON object without another in it.
        return (await self.reader.readuntil(b"}")).decode()


async def ask_often(port: int, path: str, times: int, connections: int) -> list[Connection]:
    """Ask so many times over so many connections, and leave them open."""
    connecting = (asyncio.open_connection("127.0.0.1", port) for _ in range(connections))
    opened = [Connection(*await each) for each in connecting]
    for start in range(0, times, connections):
        for group in range(0, min(connections, times - start), AT_ONCE):
            asking = opened[group : min(group + AT_ONCE, times - start)]
            await asyncio.gather(*(connection.ask(path) for connection in asking))
    return opened


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which so many in a hundred lie."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def resident_kib(pid: int) -> int:
    """Read how much memory the process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no memory")


def cpu_seconds(leader: int) -> float:
    """Add up what the process and its children have used: they are a group of their own."""
    return sum(map(_ticks_in, Path("/proc").glob("[0-9]*/stat"), repeat(leader))) / TICKS


def _ticks_in(stat: Path, group: int) -> int:
    try:
        # After the name, which may hold anything, in its brackets.
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    return int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
