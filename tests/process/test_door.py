"""A real uvicorn's answers, its own ones too: their headers, and no name of the server."""

import socket
from collections.abc import Callable

import httpx
import pytest

from tests.serving import Server
from web.headers import ALWAYS

Serve = Callable[..., Server]

OURS = {name.decode(): value.decode() for name, value in ALWAYS}


def asked_in_nonsense(server: Server) -> dict[str, str]:
    """Send what is no HTTP, and return the headers of uvicorn's own 400."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    first, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert first.startswith("HTTP/1.1 400 ")
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def test_nothing_tells_the_servers_name(serve: Serve) -> None:
    server = serve()
    for headers in (
        asked_in_nonsense(server),  # as the first request of all
        httpx.get(f"{server.url}/").headers,
        httpx.get(f"{server.url}/nothing").headers,
        asked_in_nonsense(server),
    ):
        assert OURS.items() <= dict(headers).items()
        assert "date" in headers
        assert "server" not in headers


def test_a_name_that_is_asked_for_stays(serve: Serve) -> None:
    server = serve(args=("--header", "Server:mine"))
    assert httpx.get(f"{server.url}/").headers["server"] == "mine"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_tls_is_asked_for_behind_tls(serve: Serve, scheme: str) -> None:
    answer = httpx.get(f"{serve().url}/", headers={"X-Forwarded-Proto": scheme})
    assert ("strict-transport-security" in answer.headers) is (scheme == "https")
