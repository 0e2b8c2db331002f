"""Behind nginx, Caddy, and uvicorn however it is started: the client is the client."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afterwards.http.api import LONGEST_WAIT
from tests.brokers import free_port
from tests.serving import ROOT, Server, environment, until

Serve = Callable[..., Server]
APP = "tests.process.proxied_app:app"
NGINX_CONF = (ROOT / "deploy/nginx.conf").read_text()
CADDYFILE = (ROOT / "deploy/Caddyfile").read_text()
SPOOFED = {
    "X-Forwarded-For": "198.51.100.1",
    "X-Forwarded-Proto": "gopher",
    "Forwarded": "for=198.51.100.1;proto=gopher",
}
BEHIND = {"app": APP, "TRUSTED_PROXIES": "127.0.0.1"}

needs_nginx = pytest.mark.skipif(
    not Path("/usr/sbin/nginx").exists(), reason="apt-get install nginx-light"
)
needs_caddy = pytest.mark.skipif(not shutil.which("caddy"), reason="apt-get install caddy")


@pytest.fixture
def running() -> Iterator[list[Server]]:
    processes: list[Server] = []
    yield processes
    for each in processes:
        each.kill()


def put_in(text: str, **changes: str) -> str:
    """Make the documented changes, each of which must find its place."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def certificate(directory: Path) -> ssl.SSLContext:
    """Make `cert.pem` and `key.pem` for example.com, and give what trusts them."""
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=example.com"
    files = f"-keyout {directory}/key.pem -out {directory}/cert.pem"
    names = "-addext subjectAltName=DNS:example.com"
    subprocess.run(f"{asked} {files} {names}".split(), check=True, capture_output=True)
    return ssl.create_default_context(cafile=directory / "cert.pem")


class Https:
    """Asks nginx at its port for example.com, from any address of this machine."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port, self.trust = port, trust

    def request(
        self, method: str, path: str, address: str = "127.0.0.2", **options: Any
    ) -> httpx.Response:
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        options["headers"] = {"Host": "example.com", **options.get("headers", {})}
        options.setdefault("extensions", {"sni_hostname": "example.com"})
        url = f"https://127.0.0.1:{self.port}{path}"
        with httpx.Client(transport=transport, timeout=30) as client:
            return client.request(method, url, **options)


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def through_nginx(tmp_path: Path, running: list[Server]) -> Callable[[Server], tuple[Https, int]]:
    """Start the documented nginx before a server; give what asks it, and its port without TLS."""

    def start(server: Server, **changes: str) -> tuple[Https, int]:
        trust, https, http = certificate(tmp_path), free_port(), free_port()
        site = re.sub(r" *listen \[::\].*\n", "", NGINX_CONF)
        site = put_in(
            site,
            **{
                "listen 443": f"listen 127.0.0.1:{https}",
                "listen 80": f"listen 127.0.0.1:{http}",
                "127.0.0.1:8000": f"127.0.0.1:{server.port}",
                "/etc/letsencrypt/live/example.com/fullchain.pem": f"{tmp_path}/cert.pem",
                "/etc/letsencrypt/live/example.com/privkey.pem": f"{tmp_path}/key.pem",
            },
            **changes,
        )
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.getuid() == 0 else ""  # the test's directory is closed to others
        around = (
            f"{user} pid {tmp_path}/pid; events {{}} http {{ access_log off; {places} {site} }}"
        )
        (tmp_path / "nginx.conf").write_text(around)
        command = f"/usr/sbin/nginx -p {tmp_path} -c {tmp_path}/nginx.conf -e stderr".split()
        running.append(Server([*command, "-g", "daemon off;"], {"PATH": os.environ["PATH"]}))
        until(lambda: listening(https), 20)
        return Https(https, trust), http

    return start


@needs_nginx
def test_nginx_tells_who_the_client_is(serve: Serve, through_nginx: Any) -> None:
    nginx, _ = through_nginx(serve(**BEHIND))
    for headers in ({}, SPOOFED):
        told = nginx.request("GET", "/seen", "127.0.0.2", headers=headers).json()
        assert told["client"] == "127.0.0.2"
        assert told["scheme"] == "https"
        assert told["host"] == "example.com"
        assert told["headers"] == ["x-forwarded-for", "x-forwarded-proto"]


@needs_nginx
def test_our_own_pages_post_through_nginx(serve: Serve, through_nginx: Any) -> None:
    """At another port than TLS's own, from a browser that says no more than an Origin."""
    nginx, _ = through_nginx(serve(**BEHIND))
    host = f"example.com:{nginx.port}"
    for origin, status in ((f"https://{host}", 202), ("https://example.com", 403)):
        headers = {"Host": host, "Origin": origin}
        assert nginx.request("POST", "/action", headers=headers).status_code == status


@needs_nginx
def test_an_untrusted_nginx_is_the_client(serve: Serve, through_nginx: Any) -> None:
    nginx, _ = through_nginx(serve(app=APP, TRUSTED_PROXIES="203.0.113.0/24"))
    told = nginx.request("GET", "/seen", "127.0.0.2").json()
    assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")


@needs_nginx
def test_a_plain_proxy_pass_lets_clients_lie(serve: Serve, through_nginx: Any) -> None:
    """Why the configuration sets the header, and does not leave it as it came."""
    left_out = {"proxy_set_header X-Forwarded-For $remote_addr;": ""}
    nginx, _ = through_nginx(serve(**BEHIND), **left_out)
    assert nginx.request("GET", "/seen", headers=SPOOFED).json()["client"] == "198.51.100.1"


@needs_nginx
def test_each_client_behind_nginx_has_its_limit(serve: Serve, through_nginx: Any) -> None:
    nginx, _ = through_nginx(serve(**BEHIND, RATE_LIMIT="2/hour"))
    answers = [nginx.request("GET", "/", "127.0.0.2", headers=SPOOFED) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    assert nginx.request("GET", "/", "127.0.0.3").status_code == 200


@needs_nginx
def test_bodies_pass_nginx_to_be_refused_well(serve: Serve, through_nginx: Any) -> None:
    nginx, _ = through_nginx(serve(**BEHIND))
    assert nginx.request("POST", "/seen", content=b"x" * 60_000).json()["length"] == 60_000
    refused = nginx.request("POST", "/process", content=b"x" * 60_000)
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"
    huge = nginx.request("POST", "/process", content=b"x" * 100_000)
    assert huge.status_code == 413
    assert huge.headers["content-type"] == "text/html"  # nginx's own


@needs_nginx
def test_nginx_answers_for_its_host_only(serve: Serve, through_nginx: Any) -> None:
    nginx, http = through_nginx(serve(**BEHIND))
    with pytest.raises(httpx.RemoteProtocolError):  # it hangs up
        httpx.get(f"http://127.0.0.1:{http}/", headers={"Host": "evil.example"})
    with pytest.raises(httpx.ConnectError, match="unrecognized name"):
        nginx.request("GET", "/seen", extensions={"sni_hostname": "evil.example"})
    moved = httpx.get(f"http://127.0.0.1:{http}/seen?a=1", headers={"Host": "example.com"})
    assert moved.headers["location"] == "https://example.com/seen?a=1"


@needs_nginx
def test_nginx_holds_a_wait_open(serve: Serve, through_nginx: Any) -> None:
    nginx, _ = through_nginx(serve(**BEHIND, SLEEP_SECONDS="2"))
    id = nginx.request("GET", "/test").headers["task-id"]
    assert nginx.request("GET", f"/tasks/{id}?wait=25").json()["state"] == "succeeded"


@pytest.mark.parametrize(
    ("text", "waits", "kept"),
    [
        (NGINX_CONF, r"proxy_read_timeout (\d+)s", r"keepalive_timeout (\d+)s"),
        (CADDYFILE, r"response_header_timeout (\d+)s", r"keepalive (\d+)s"),
    ],
    ids=["nginx.conf", "Caddyfile"],
)
def test_proxies_wait_longer_than_we_do(text: str, waits: str, kept: str) -> None:
    [seconds], [idle] = re.findall(waits, text), re.findall(kept, text)
    assert int(seconds) > LONGEST_WAIT
    assert int(idle) < 5  # uvicorn's own, which is the shortest of ours


@needs_caddy
def test_caddy_tells_who_the_client_is(serve: Serve, tmp_path: Path, running: list[Server]) -> None:
    server, port = serve(**BEHIND), free_port()
    site = put_in(
        CADDYFILE,
        **{
            "example.com {": f"http://127.0.0.1:{port} {{",
            "127.0.0.1:8000": f"127.0.0.1:{server.port}",
            "\tservers {": "\tadmin off\n\tservers {",
        },
    )
    (tmp_path / "Caddyfile").write_text(site)
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    running.append(Server(["caddy", "run", "--config", f"{tmp_path}/Caddyfile"], home))
    until(lambda: listening(port), 20)
    with httpx.Client(
        transport=httpx.HTTPTransport(local_address="127.0.0.2"),
        base_url=f"http://127.0.0.1:{port}",
    ) as client:
        told = client.get("/seen", headers=SPOOFED).json()
        assert told["client"] == "127.0.0.2"
        assert told["headers"] == ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        assert client.post("/process", content=b"x" * 60_000).status_code == 413
        huge = client.post("/seen", content=b"x" * 100_000)
        assert huge.status_code in (413, 502)  # Caddy's own: it has sent the first part on


@needs_caddy
def test_caddy_takes_the_file_as_it_is(tmp_path: Path) -> None:
    file = ROOT / "deploy/Caddyfile"
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for command in (f"validate --adapter caddyfile --config {file}", f"fmt {file}"):
        done = subprocess.run(["caddy", *command.split()], env=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == CADDYFILE


STARTS = {
    "uvicorn": ["uvicorn", "asgi_app:app", "--port", "{port}"],
    "workers": ["uvicorn", "asgi_app:app", "--port", "{port}", "--workers", "2"],
    "h11": ["uvicorn", "asgi_app:app", "--port", "{port}", "--http", "h11"],
    "Procfile": ["sh", "-c", (ROOT / "Procfile").read_text().split("\n")[0].partition(": ")[2]],
    "python": ["python", "asgi_app.py"],
}


def left(server_port: int) -> list[int]:
    """Ask three times under three names, and tell what each answer says is left of the limit."""
    url = f"http://127.0.0.1:{server_port}/"
    answers = [
        httpx.get(url, headers={"X-Forwarded-For": f"198.51.100.{at}, 203.0.113.9"})
        for at in range(3)
    ]
    return sorted(int(re.findall(r"r=(\d+)", each.headers["ratelimit"])[0]) for each in answers)


@pytest.mark.parametrize("start", STARTS)
def test_no_start_lets_clients_choose_addresses(
    start: str, tmp_path: Path, running: list[Server]
) -> None:
    """As Heroku has it: its buildpack sets FORWARDED_ALLOW_IPS, which has uvicorn trust all."""
    port = free_port()
    rules = {"RATE_LIMIT": "10/hour", "RATE_LIMIT_STORAGE": "database", "DYNO": "web.1"}
    variables = {**rules, "FORWARDED_ALLOW_IPS": "*", "PORT": str(port)}
    command = [part.format(port=port) for part in STARTS[start]]
    running.append(Server([*command], environment(tmp_path, variables)))
    until(lambda: listening(port), 20)
    assert left(port) == [7, 8, 9]


def test_uvicorns_own_rule_believes_the_leftmost(serve: Serve) -> None:
    server = serve(RATE_LIMIT="10/hour", FORWARDED_ALLOW_IPS="*")
    assert left(server.port) == [9, 9, 9]


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.usefixtures("anyio_backend")
def test_processes_share_a_limit_in_the_database(serve: Serve, database_url: str) -> None:
    rules = {"RATE_LIMIT": "5/hour", "RATE_LIMIT_STORAGE": "database", "DATABASE_URL": database_url}
    servers = [serve(**rules) for _ in range(2)]
    answers = [httpx.get(f"{servers[at % 2].url}/", timeout=20).status_code for at in range(8)]
    assert answers == [200] * 5 + [429] * 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.usefixtures("anyio_backend")
def test_in_memory_each_process_counts_alone(serve: Serve, database_url: str) -> None:
    servers = [serve(RATE_LIMIT="2/hour", DATABASE_URL=database_url) for _ in range(2)]
    answers = [httpx.get(f"{servers[at % 2].url}/", timeout=20).status_code for at in range(6)]
    assert answers == [200] * 4 + [429] * 2


def test_a_wrong_task_name_stops_the_start(serve: Serve) -> None:
    server = serve(TASK_RATE_LIMITS="wrok=1/hour")
    assert server.process.wait(30) == 3
    assert server.log().splitlines()[-1].startswith("wrong setting: TASK_RATE_LIMITS: got 'wrok'")
