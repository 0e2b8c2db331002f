"""The platforms' files agree with the Procfile, with the settings and with each other."""

import json
import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from settings import Settings
from tests.brokers import free_port
from tests.serving import BIN, ROOT, Server

PROCFILE, APP_JSON, RENDER, DOCKERFILE, COMPOSE = (
    (ROOT / name).read_text()
    for name in ("Procfile", "app.json", "render.yaml", "Dockerfile", "docker-compose.yml")
)

# Read by the platform, Python, the agent or SkyWalking's own containers, not by settings/.
FOREIGN = {
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "SW_AGENT_NAME",
    "SW_AGENT_LOG_REPORTER_LEVEL",
    "SW_STORAGE",
    "SW_STORAGE_BANYANDB_TARGETS",
    "SW_OAP_ADDRESS",
    "SW_METER_ANALYZER_ACTIVE_FILES",
    "SW_SEARCHABLE_TAG_KEYS",
    "SW_SEARCHABLE_LOGS_TAG_KEYS",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "RABBITMQ_DEFAULT_USER",
    "RABBITMQ_DEFAULT_PASS",
}
NAMED = {
    "app.json": set(json.loads(APP_JSON)["env"]),
    "render.yaml": set(re.findall(r"- key: (\w+)", RENDER)),
    "Dockerfile": {
        name
        for line in re.findall("^ENV (.+)", DOCKERFILE, re.M)
        for name in re.findall(r"(\w+)=", line)
    },
    "docker-compose.yml": set(re.findall(r"^      ([A-Z]\w+):", COMPOSE, re.M)),
}
COMMAND, WORKER = (line.partition(": ")[2] for line in PROCFILE.splitlines())
TRACES_SECONDS = 3  # what the shutdown gives the agent


@pytest.mark.parametrize("file", NAMED)
def test_somebody_reads_every_variable(file: str) -> None:
    assert NAMED[file]
    assert NAMED[file] <= FOREIGN | {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("text", [RENDER, DOCKERFILE], ids=["render.yaml", "Dockerfile"])
def test_the_procfiles_command_starts_the_service(text: str) -> None:
    assert re.findall(
        r"^(?:    startCommand: |CMD \[\"sh\", \"-c\", \"exec )(uvicorn[^\"\n]+)", text, re.M
    ) == [COMMAND]


def test_the_procfile_has_only_two_processes() -> None:
    """`heroku local` takes any other line for a mistake (heroku/cli#3636)."""
    assert PROCFILE.count("\n") == 2
    assert PROCFILE.startswith("web: uvicorn asgi_app:app ")
    assert "REMAP_SIGTERM=SIGQUIT exec celery -A celery_app worker " in WORKER


def test_the_procfiles_command_starts_composes_worker() -> None:
    assert WORKER.partition("fi; ")[2] in COMPOSE


def test_a_brokerless_worker_runs_tasks_too(tmp_path: Path) -> None:
    """`honcho start` ends the web process with the first process that ends."""
    url = f"sqlite:///{tmp_path}/service.db"
    environ = {"PATH": f"{BIN}:{os.environ['PATH']}", "DATABASE_URL": url, "RUN_TASKS": "0"}
    worker = Server(["sh", "-c", WORKER], environ | {"PYTHONUNBUFFERED": "1"})
    web = Server(
        ["sh", "-c", COMMAND], environ | {"PYTHONUNBUFFERED": "1", "PORT": str(free_port())}
    )
    try:
        id = httpx.post(f"{web.url}/action", timeout=30).headers["task-id"]
        page = httpx.get(f"{web.url}/tasks/{id}?wait=20", timeout=30).json()
        assert page["state"] == "succeeded"
        assert "action: action" in worker.log()
        assert "action: action" not in web.log()
        worker.stop()
        assert worker.process.returncode in (0, -signal.SIGTERM)
    finally:
        worker.kill()
        web.kill()


def test_no_worker_runs_unasked() -> None:
    """Without a broker it would share the web processes' work, and cost a second dyno."""
    assert "worker" not in json.loads(APP_JSON)["formation"]
    assert re.findall(r"^  fleet-worker:\n    profiles: \[celery\]", COMPOSE, re.M)


def test_the_image_has_only_the_service() -> None:
    left_out = {line.strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/*.py")}
    assert folders - left_out == {"afterwards", "effects", "settings", "web"}
    assert not {path.name for path in ROOT.glob("*.py")} & left_out


def test_the_image_build_uses_the_lock() -> None:
    [copied] = re.findall(r"^COPY (requirements.+) \./$", DOCKERFILE, re.M)
    assert {"requirements.lock", "requirements.txt", "requirements-celery.txt"} < {*copied.split()}
    assert "-c requirements.lock" in DOCKERFILE
    assert "-c requirements.lock" in RENDER


@pytest.mark.parametrize(
    "grace",
    [
        30,  # Heroku's, which nothing changes
        int(re.findall(r"maxShutdownDelaySeconds: (\d+)", RENDER)[0]),
        min(int(seconds) for seconds in re.findall(r"stop_grace_period: (\d+)s", COMPOSE)),
    ],
    ids=["Heroku", "render.yaml", "docker-compose.yml"],
)
def test_shutdown_ends_before_the_platform_kills(grace: int) -> None:
    requests = int(re.findall(r"--timeout-graceful-shutdown (\d+)", COMMAND)[0])
    assert requests + Settings().drain_seconds + TRACES_SECONDS < grace


def test_platforms_drain_for_the_default_time() -> None:
    said = [
        json.loads(APP_JSON)["env"]["DRAIN_SECONDS"]["value"],
        *re.findall(r"- key: DRAIN_SECONDS\n +value: \"(\d+)\"", RENDER),
        *re.findall(r"DRAIN_SECONDS: \"(\d+)\"", COMPOSE),
    ]
    assert [float(seconds) for seconds in said] == [Settings().drain_seconds] * 4


def test_every_platform_has_an_operators_token() -> None:
    assert json.loads(APP_JSON)["env"]["ADMIN_TOKEN"]["generator"] == "secret"
    assert re.search(r"- key: ADMIN_TOKEN.*\n +generateValue: true\n", RENDER)
    services = re.findall(r"^      ADMIN_TOKEN: (.+)$", COMPOSE, re.M)
    assert services == [services[0], "*admin-token"]
    assert re.match(r"&admin-token \$\{ADMIN_TOKEN:\?.+\}$", services[0])  # it refuses to start


def test_every_platform_asks_for_the_locks() -> None:
    """What is off or open until somebody sets it; compose's ports are this machine's alone."""
    for name in ("ALLOWED_HOSTS", "JWT_SECRET", "TASK_SECRET_KEY"):
        assert json.loads(APP_JSON)["env"][name]["required"] is False
        assert re.search(rf"- key: {name} .*\n +sync: false\n", RENDER)
    hosts = re.findall(r"^      ALLOWED_HOSTS: (.+)$", COMPOSE, re.M)
    assert hosts == ["&allowed-hosts ${ALLOWED_HOSTS:-localhost,127.0.0.1}", "*allowed-hosts"]


def test_no_platform_is_for_development() -> None:
    assert "DEVELOPMENT" not in APP_JSON + RENDER + DOCKERFILE + COMPOSE + PROCFILE


def test_every_image_names_its_release() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) + re.findall(
        r"^ +image: (\S+)", COMPOSE, re.M
    )
    assert len(images) == 6
    assert not [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?", image)]


def test_image_and_platforms_share_one_python() -> None:
    assert f"FROM python:{(ROOT / '.python-version').read_text().strip()}." in DOCKERFILE


def test_compose_opens_no_port_to_others() -> None:
    ports = re.findall(r"^ +- \"([\d.:]+)\"", COMPOSE, re.M)
    assert ports
    assert not [port for port in ports if not port.startswith("127.0.0.1:")]
