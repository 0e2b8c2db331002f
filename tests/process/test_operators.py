"""What a real proxy and a real start make of the operators' routes."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import serving
from tests.brokers import free_port
from tests.serving import Server, until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

# As somebody writes it who has read the first example that he found.
PLAIN = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}
}}
"""
TOKEN = "a secret of some length"


@pytest.fixture
def plain_nginx(tmp_path: Path) -> Iterator[Callable[[Server], str]]:
    """Put an nginx before a server, and give its URL; it ends with the test."""
    if NGINX is None:
        pytest.skip("there is no nginx: install Debian's package nginx-light")
    running: list[subprocess.Popen[bytes]] = []

    def start(server: Server) -> str:
        port, directory = free_port(), tmp_path / "nginx"
        directory.mkdir()
        config = directory / "nginx.conf"
        config.write_text(PLAIN.format(directory=directory, port=port, url=server.url))
        running.append(subprocess.Popen([NGINX, "-p", directory, "-c", config]))
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(url), 20)
        return url

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _asked(url: str, id: str, **headers: str) -> list[httpx.Response]:
    asked = [("GET", ""), ("GET", "/changes"), ("GET", "/login"), ("GET", f"/{id}/arguments")]
    asked += [("DELETE", f"/{id}"), ("POST", f"/{id}/retry")]
    return [
        httpx.request(method, f"{url}/tasks{path}", headers=headers, timeout=30)
        for method, path in asked
    ]


def test_a_plain_proxy_opens_nothing(
    serve: Callable[..., Server], plain_nginx: Callable[[Server], str]
) -> None:
    server = serve(DEVELOPMENT="")
    proxied = plain_nginx(server)
    id = httpx.get(f"{proxied}/test").headers["task-id"]
    for url in (proxied, server.url, server.url.replace("127.0.0.1", "localhost")):
        for answer in _asked(url, id):
            assert answer.status_code == 403, answer.url
            assert "ADMIN_TOKEN" in answer.json()["detail"]
    assert httpx.get(f"{proxied}/tasks/{id}").json()["state"] == "running"


def test_a_token_passes_a_plain_proxy(
    serve: Callable[..., Server], plain_nginx: Callable[[Server], str]
) -> None:
    server = serve(ADMIN_TOKEN=f"{TOKEN}, the next one of several", ADMIN_READ_TOKEN="r" * 16)
    proxied = plain_nginx(server)
    id = httpx.get(f"{proxied}/test").headers["task-id"]
    assert {answer.status_code for answer in _asked(proxied, id)} - {200} == {401}
    read = _asked(proxied, id, Authorization="Bearer " + "r" * 16)
    assert [answer.status_code for answer in read] == [200, 200, 200, 200, 403, 403]
    for token in (TOKEN, "the next one of several"):
        listed = httpx.get(f"{proxied}/tasks", headers={"Authorization": f"Bearer {token}"})
        assert listed.status_code == 200
    done = _asked(proxied, id, Authorization=f"Bearer {TOKEN}")
    assert [answer.status_code for answer in done] == [200, 200, 200, 200, 200, 202]
    # Neither browser's word nor Host would be enough: the cookie is a browser's alone.
    server.wait_for_log(rf"operator [0-9a-f]{{8}} from 127\.0\.0\.1: retry {id}")


def test_development_is_for_this_machine(serve: Callable[..., Server]) -> None:
    server = serve(DEVELOPMENT="1")
    assert httpx.get(f"{server.url}/tasks").status_code == 200
    rebound = {"Host": f"rebound.example:{server.port}"}
    assert httpx.get(f"{server.url}/tasks", headers=rebound).status_code == 403
    foreign = {"Origin": "http://evil.example"}
    assert httpx.post(f"{server.url}/tasks/task-1/retry", headers=foreign).status_code == 403
    assert httpx.post(f"{server.url}/tasks/task-1/retry").status_code == 404


@pytest.mark.parametrize(("given", "status"), [({}, 200), ({"DEVELOPMENT": "0"}, 403)])
def test_make_run_is_development(tmp_path: Path, given: dict[str, str], status: int) -> None:
    if not (serving.ROOT / ".venv").exists():
        pytest.skip("make run needs the environment that it makes")
    environ = serving.environment(tmp_path, {"PORT": str(free_port())})
    del environ["DEVELOPMENT"]
    server = Server(["make", "-o", ".venv/complete", "run"], environ | given)
    try:
        assert httpx.get(f"{server.url}/tasks", timeout=30).status_code == status
    finally:
        server.kill()
