"""A tiny real HTTP server on loopback: it answers as told, remembers what it was asked."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked], bytes | AsyncIterator[bytes]]


@dataclass
class Server:
    answer: Answer
    url: str = ""
    connections: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with (
            contextlib.closing(writer),
            contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),
        ):
            while True:
                self.asked.append(await _read(reader))
                await _write(writer, self.answer(self.asked[-1]))


@contextlib.asynccontextmanager
async def serving(
    answer: bytes | Answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server((lambda _: answer) if isinstance(answer, bytes) else answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(server.connected(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    named = {"content-length": str(len(body))} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    lines = [
        f"HTTP/1.1 {status} Because",
        *(f"{name}: {text}" for name, text in named.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def in_turn(*answers: bytes) -> Answer:
    """Answer with each in its turn, and with the last from then on."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


async def silence(*said: bytes) -> AsyncIterator[bytes]:
    """Say this, then nothing for ever."""
    for piece in said:
        yield piece
    await asyncio.Event().wait()


async def dripping(head: bytes, piece: bytes) -> AsyncIterator[bytes]:
    """Say something every 20 ms, so that no single wait is ever long."""
    yield head
    while True:
        await asyncio.sleep(0.02)
        yield piece


async def endless(head: bytes, piece: bytes) -> AsyncIterator[bytes]:
    yield head
    while True:
        yield piece


def unused_port() -> int:
    """Name a port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {
        name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)
    }
    method, path, _ = first.split(" ")
    return Asked(
        method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))
    )


async def _write(writer: asyncio.StreamWriter, answer: bytes | AsyncIterator[bytes]) -> None:
    if isinstance(answer, bytes):
        writer.write(answer)
    else:
        async for piece in answer:
            writer.write(piece)
            await writer.drain()
        writer.close()
    await writer.drain()
