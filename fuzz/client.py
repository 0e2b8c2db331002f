"""How a case is played over a socket of its own, and what was answered."""

import asyncio
import json
import socket
from contextlib import suppress
from typing import NamedTuple

from fuzz.cases import Case

PATIENCE = 20.0  # seconds for the answers to one case: what is not whole is refused after ten
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER with no time: closing sends a reset


class Answer(NamedTuple):
    status: int
    task_ids: list[str]
    is_problem: bool


async def play(port: int, case: Case) -> list[Answer]:
    """Send the case, and read answers until no more come; raise TimeoutError if none does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        with suppress(ConnectionError):
            await _send(writer, case)
        if case.way in ("half", "reset", "deaf"):
            return []
        async with asyncio.timeout(PATIENCE):
            return await _answers(reader)
    finally:
        if case.way == "reset":
            with suppress(OSError):
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, case: Case) -> None:
    sent = case.sent[: len(case.sent) // 2] if case.way == "half" else case.sent
    parts = 4 if case.way == "in parts" else 1
    size = max(1, -(-len(sent) // parts))
    for start in range(0, len(sent), size):
        writer.write(sent[start : start + size])
        async with asyncio.timeout(PATIENCE):
            await writer.drain()
        if parts > 1:
            await asyncio.sleep(0.005)
    if case.way == "half closed":
        with suppress(OSError):  # who has been cut off already has no end to send
            writer.write_eof()


async def _answers(reader: asyncio.StreamReader) -> list[Answer]:
    """Read answers; after the first wait but a moment, as only the server knows how many come."""
    found: list[Answer] = []
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            try:
                async with asyncio.timeout(0.05 if found else None):
                    head = await reader.readuntil(b"\r\n\r\n")
            except TimeoutError:
                if found:
                    break
                raise
            answer, is_last = await _answer(reader, head)
            found += [answer] if answer.status >= 200 else []
            if is_last:
                break
    return found


async def _answer(reader: asyncio.StreamReader, head: bytes) -> tuple[Answer, bool]:
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split()[1])
    is_problem = headers.get("content-type") == "application/problem+json"
    try:
        async with asyncio.timeout(0.5):
            body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (TimeoutError, asyncio.IncompleteReadError):
        body = b""  # there is none after HEAD
    # The next answer: the one to a HEAD says how long it would have been.
    is_lost = body.startswith(b"HTTP/1.")
    if is_problem and body and not is_lost:
        is_problem = json.loads(body)["status"] == status
    ids = headers["task-id"].split(", ") if status < 300 and "task-id" in headers else []
    return Answer(status, ids, is_problem), is_lost or headers.get("connection") == "close"
