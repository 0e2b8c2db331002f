"""Connections to a real uvicorn: bounded in size, time and number, served as before."""

import json
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests import serving
from tests.serving import Server, until
from web.connections import MAX_FIELDS, MAX_HEAD, MAX_PIPELINED

Serve = Callable[..., Server]

MIB = 1024 * 1024
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /process HTTP/1.1\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
HALF = b"GET / HTTP/1.1\r\nHost:"
IMPATIENT = "tests.process.impatient_app:app"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serving.start(tmp_path_factory.mktemp("connections"))
    yield server
    server.kill()


@pytest.fixture
def connect() -> Iterator[Callable[[Server], socket.socket]]:
    with ExitStack() as opened:
        yield lambda server: opened.enter_context(
            socket.create_connection(("127.0.0.1", server.port), 30)
        )


Connect = Callable[[Server], socket.socket]


def all_of(client: socket.socket) -> bytes:
    """Read until the other side closes; what it resets counts as closed."""
    received = b""
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            received += part
    return received


def answers(client: socket.socket) -> list[tuple[int, dict[str, str], bytes]]:
    """Read until the other side closes, and take the answers apart."""
    left, found = all_of(client), []
    while left:
        head, _, left = left.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])
        }
        size = int(headers["content-length"])
        found.append((int(lines[0].split()[1]), headers, left[:size]))
        left = left[size:]
    return found


def status(client: socket.socket) -> int:
    """Read one answer, whose connection is kept, and return its status."""
    head, body = b"", b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    size = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < size:
        body += client.recv(size - len(body))
    return int(head.split()[1])


def problem(client: socket.socket) -> int:
    """Read the one answer, which must be a problem, and the end; return its status."""
    ((code, headers, body),) = answers(client)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert json.loads(body)["status"] == code
    return code


def flood(client: socket.socket, begin: bytes, part: bytes, limit: int) -> int:
    """Send the part again and again, 20 s or `limit` bytes at most; return how many were taken."""
    sent, deadline = 0, time.monotonic() + 20
    client.sendall(begin)
    with suppress(ConnectionError):
        while (
            sent < limit
            and time.monotonic() < deadline
            and not select.select([client], [], [], 0)[0]
        ):
            client.sendall(part)
            sent += len(part)
    return sent


def memory(server: Server) -> int:
    """Give the most bytes of memory that the process has had."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def is_served(server: Server) -> bool:
    return httpx.get(f"{server.url}/health", timeout=20).status_code == 200


# --- size ---


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"GET / HTTP/1.1\r\n", b"name: " + b"x" * 4000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a:\r\n" * 1000),
        (b"GET / HTTP/1.1\r\nname: ", b"x" * 65536),
        (b"GET /", b"x" * 65536),
        (CHUNKED + b"\r\n0\r\nname: ", b"x" * 65536),
        (CHUNKED + b"\r\n1;name=", b"x" * 65536),
    ],
    ids=["fields", "small fields", "one field", "path", "trailer", "chunk extension"],
)
def test_an_endless_head_is_refused(
    server: Server, connect: Connect, begin: bytes, part: bytes
) -> None:
    assert is_served(server)
    before, client = memory(server), connect(server)
    assert flood(client, begin, part, 64 * MIB) < 32 * MIB
    assert problem(client) in (400, 431)
    assert memory(server) - before < 16 * MIB
    assert is_served(server)


@pytest.mark.parametrize(
    ("size", "expected"), [(MAX_HEAD - 1024, 200), (MAX_HEAD + 20 * 1024, 431)]
)
def test_a_head_is_bounded_in_bytes(
    server: Server, connect: Connect, size: int, expected: int
) -> None:
    client = connect(server)
    client.sendall(LAST[:-2] + b"name: " + b"x" * size + b"\r\n\r\n")
    assert answers(client)[0][0] == expected


@pytest.mark.parametrize(("count", "expected"), [(MAX_FIELDS - 2, 200), (MAX_FIELDS - 1, 431)])
def test_a_head_is_bounded_in_fields(
    server: Server, connect: Connect, count: int, expected: int
) -> None:
    client = connect(server)
    client.sendall(LAST[:-2] + b"a: b\r\n" * count + b"\r\n")
    assert answers(client)[0][0] == expected


def test_refusals_are_told_once_a_minute(serve: Serve, connect: Connect) -> None:
    server = serve()
    for _ in range(5):
        client = connect(server)
        client.sendall(LAST[:-2] + b"a: b\r\n" * 200 + b"\r\n")
        assert problem(client) == 431
    server.wait_for_log("refused [1-5] requests with too large a head")
    server.stop()
    assert server.log().count("too large a head") == 1


def test_pipelined_requests_are_answered_in_order(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.sendall(
        b"".join(
            b"GET /tasks/%d HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n" % n
            for n in range(40)
        )
        + LAST
    )
    assert [code for code, _, _ in answers(client)] == [404, 200] * 40 + [200]


def test_requests_far_ahead_are_left(server: Server, connect: Connect) -> None:
    assert is_served(server)
    before, client = memory(server), connect(server)
    with suppress(ConnectionError):
        client.sendall(b"GET /users/ HTTP/1.1\r\n\r\n" * 40_000)
    found = answers(client)
    assert len(found) <= MAX_PIPELINED + 1
    assert memory(server) - before < 16 * MIB
    assert is_served(server)


# --- time ---


def test_what_was_half_sent_ends(server: Server, connect: Connect) -> None:
    half, silent, nagging, slow = (
        [connect(server) for _ in range(200)],
        connect(server),
        connect(server),
        connect(server),
    )
    for client in half:
        client.sendall(HALF)
    for byte in LAST:  # honest, and slow: some five seconds
        slow.sendall(bytes([byte]))
        nagging.sendall(b"\r\n")  # which begins no request
        time.sleep(0.1)
    assert answers(slow)[0][0] == 200
    assert {problem(client) for client in [*half, nagging]} == {408}
    assert all_of(silent) == b""
    assert is_served(server)
    server.wait_for_log(r"closed \d+ connections whose request was not whole in time")


def test_a_kept_connection_may_be_silent(serve: Serve, connect: Connect) -> None:
    server = serve(app=IMPATIENT)
    client = connect(server)
    client.sendall(GET)
    assert status(client) == 200
    other = connect(server)
    # It is closed after a second or two, which the first has been silent for as well.
    assert all_of(other) == b""
    client.sendall(LAST)
    assert answers(client)[0][0] == 200


def test_bodies_outliving_their_answer_end(serve: Serve, connect: Connect) -> None:
    server = serve(app=IMPATIENT)
    client = connect(server)
    client.sendall(b"POST /nowhere HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    assert status(client) == 404
    with pytest.raises(ConnectionError):  # noqa: PT012  # the one that finds it closed is any of these
        for _ in range(200):
            client.sendall(b"x")
            time.sleep(0.1)


def _picture(server: Server, tmp_path: Path, connect: Connect) -> socket.socket:
    """Ask for a picture that is larger than any socket's buffers."""
    assert is_served(server)
    id = "task-20261120-233412-123456-0123456789abcdef"
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / f"{id}.png").write_bytes(b"x" * 24 * MIB)
    client = connect(server)
    client.sendall(b"GET /images/%s HTTP/1.1\r\nConnection: close\r\n\r\n" % id.encode())
    return client


def test_an_answer_that_nobody_reads_ends(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(app=IMPATIENT)
    client = _picture(server, tmp_path, connect)
    server.wait_for_log("cut 1 connections whose clients did not read")
    assert len(all_of(client)) < 24 * MIB
    assert is_served(server)
    assert "Traceback" not in server.log()


def test_a_slowly_read_answer_is_whole(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(app=IMPATIENT)
    client, received = _picture(server, tmp_path, connect), 0
    while part := client.recv(MIB):
        received += len(part)
        time.sleep(0.1)
    assert received > 24 * MIB


# --- number ---


def limited(server: Server, count: int) -> Server:
    """Leave the server so many descriptors, before its first connection."""
    assert server.url
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (count, count))
    return server


def test_idle_connections_cannot_keep_others_out(serve: Serve, connect: Connect) -> None:
    server = limited(serve(), 128)
    idle = [connect(server)]
    idle[0].sendall(GET)
    for number in range(300):
        idle.append(connect(server))
        if number % 2:
            idle[-1].sendall(HALF)
        if number % 50 == 0:
            assert is_served(server)
    assert is_served(server)
    assert descriptors(server) < 128
    all_of(idle[0])  # the longest idle one is closed
    server.wait_for_log(r"closed the longest idle connections, .* allow more descriptors")
    assert server.log().count("longest idle") == 1
    assert "Traceback" not in server.log()


def test_few_idle_connections_are_all_kept(serve: Serve, connect: Connect) -> None:
    server = limited(serve(), 128)
    idle = [connect(server) for _ in range(90)]
    for client in idle:
        client.sendall(GET)
        assert status(client) == 200
    for client in idle:
        client.sendall(LAST)
        assert answers(client)[0][0] == 200


def test_too_many_busy_connections_refuse_more(serve: Serve, connect: Connect) -> None:
    server = limited(serve(WORK_SECONDS="4"), 128)
    busy = [connect(server) for _ in range(96)]
    for client in busy:
        client.sendall(b"POST /sync-task/ HTTP/1.1\r\nConnection: close\r\n\r\n")
    until(lambda: problem(connect(server)) == 503, 3)
    assert {answers(client)[0][0] for client in busy} == {200}
    assert is_served(server)


# --- as before ---


def test_an_upgrade_is_answered_as_before(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert status(client) == 200
    server.wait_for_log("Unsupported upgrade request")


def test_anything_but_http_is_a_problem(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert problem(client) == 400


def test_nonsense_behind_requests_leaves_their_answer(server: Server, connect: Connect) -> None:
    client = connect(server)
    client.sendall(GET + b"nonsense\r\n\r\n")
    ((code, headers, _),) = answers(client)
    assert (code, headers["connection"]) == (200, "close")


def test_nonsense_as_body_costs_no_traceback(serve: Serve, connect: Connect) -> None:
    server = serve()
    client = connect(server)
    client.sendall(CHUNKED + b"Expect: 100-continue\r\n\r\nnonsense\r\n")
    assert problem(client) == 400
    server.stop()
    assert "Traceback" not in server.log()


def test_nonsense_within_bodies_is_refused_immediately(server: Server, connect: Connect) -> None:
    client, began = connect(server), time.monotonic()
    client.sendall(CHUNKED + b'\r\n5\r\n{"id"\r\nnonsense\r\n')
    assert problem(client) == 400
    assert time.monotonic() - began < 8  # the body itself has ten seconds


def test_clients_leaving_early_cost_no_traceback(serve: Serve, connect: Connect) -> None:
    server = serve()
    for _ in range(50):
        client = connect(server)
        client.sendall((POST + b'Content-Length: 8\r\n\r\n{"id":1}') * 5)
        # Closing sends a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert is_served(server)
    server.stop()
    assert "Traceback" not in server.log()
