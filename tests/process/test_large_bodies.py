"""What many clients send at once takes no more of a real server's memory than the routes allow."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.serving import Server, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")

MEBIBYTE = 1024 * 1024
HEAD = b"POST /process HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
BODY = b'{"id": "' + b"x" * (MEBIBYTE - 10) + b'"}'
ANNOUNCED = HEAD + b"Content-Length: %d\r\n\r\n" % MEBIBYTE + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MEBIBYTE + BODY + b"\r\n0\r\n\r\n"
SMALL = HEAD + b'Content-Length: 9\r\nConnection: close\r\n\r\n{"id": 1}'


def most_memory(server: Server) -> int:
    """Give the most bytes that the process has ever had in memory."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def status(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read(12)
    writer.close()
    return answer.partition(b" ")[2]


async def all_at_once(port: int, request: bytes) -> set[bytes]:
    return set(await asyncio.gather(*(status(port, request) for _ in range(200))))


@pytest.mark.parametrize("request_sent", [ANNOUNCED, CHUNKED], ids=["announced", "chunked"])
def test_two_hundred_large_bodies_fill_nothing(tmp_path: Path, request_sent: bytes) -> None:
    server = start(tmp_path)
    try:
        assert asyncio.run(all_at_once(server.port, SMALL)) == {b"202"}
        before = most_memory(server)
        assert asyncio.run(all_at_once(server.port, request_sent)) == {b"413"}
        assert most_memory(server) - before < 100 * MEBIBYTE
        assert asyncio.run(status(server.port, SMALL)) == b"202"
    finally:
        server.kill()
