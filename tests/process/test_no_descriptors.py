"""Out of file descriptors: the service answers in problem+json, and accepts nothing."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import serving
from tests.serving import Server


@contextmanager
def no_descriptors(server: Server) -> Iterator[None]:
    """Let the server open nothing more: neither a file nor a socket nor a pipe."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
    lowest_free = min(set(range(max(taken) + 2)) - taken)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("no-descriptors")
    (directory / "images").mkdir()
    (directory / "images" / "kept.png").write_bytes(b"x")
    server = serving.start(directory)
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("PUT", "/users/", None, 405),
        ("POST", "/users/", {"email": "nobody"}, 422),
        ("GET", "/images/kept", None, 503),
    ],
)
def test_without_descriptors_errors_are_problems(
    server: Server, method: str, path: str, body: object, status: int
) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.get("/").status_code == 200  # its connection is there before
        with no_descriptors(server):
            answer = client.request(method, path, json=body)
            assert client.get("/").status_code == 200
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    assert ("retry-after" in answer.headers) == (status == 503)


def test_without_descriptors_what_is_open_accepts(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.post("/action").status_code == 202  # so that the file is open
        with no_descriptors(server):
            assert client.post("/action").status_code == 202


def test_with_descriptors_again_all_is_well(server: Server) -> None:
    assert httpx.post(f"{server.url}/action").status_code == 202
    assert httpx.get(f"{server.url}/images/kept").content == b"x"
    assert "Traceback" not in server.log()
