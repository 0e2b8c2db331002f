"""The service, and the servers that other queues need: started on free ports, and stopped."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests import serving

# Debian keeps these off the PATH: Postgres' programs, and RabbitMQ's, unwrapped: no other user's.
HIDDEN = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/lib/rabbitmq/bin"]
PATH = os.pathsep.join([*HIDDEN, os.environ["PATH"]])
START_SECONDS = 60  # RabbitMQ takes ten on a busy machine

Variables = dict[str, str]


class ToFile(serving.Server):
    """A server that writes its log to a file, as a deployed one does, and not to its watcher."""

    def __init__(self, command: Sequence[str], environ: Variables) -> None:
        self._file = tempfile.NamedTemporaryFile("r", suffix=".log")  # noqa: SIM115  # until it is killed
        redirected = 'exec "$0" "$@" >"$LOG_FILE" 2>&1'
        shell = ["/bin/sh", "-c", redirected, *command]
        super().__init__(shell, {**environ, "LOG_FILE": self._file.name})

    def log(self) -> str:
        return Path(self._file.name).read_text()

    def wait_for_log(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        found = serving.until(lambda: re.search(pattern, self.log()), seconds)
        assert found is not None
        return found

    def kill(self) -> None:
        super().kill()
        self._file.close()


class Kind(NamedTuple):
    """A server's program and Debian package, and what starts it and gives the variables for it."""

    program: str
    package: str
    running: Callable[[Path], AbstractContextManager[Variables]]

    def missing(self) -> str:
        """Say what to install when the program is not there; else nothing."""
        if shutil.which(self.program, path=PATH):
            return ""
        return f"{self.program} is not installed (Debian: apt-get install {self.package})"


@contextmanager
def running(kinds: Sequence[Kind]) -> Iterator[Variables]:
    """Run a server of each kind in a directory of its own; give the variables that name them."""
    variables: Variables = {}
    with ExitStack() as stack:
        for kind in kinds:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            variables |= stack.enter_context(kind.running(directory))
        yield variables


@contextmanager
def service(directory: Path, app: str, **variables: str) -> Iterator[serving.Server]:
    """Serve the application on a database in this directory."""
    server = serving.start(directory, app=app, args=["--no-access-log"], **variables)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def _redis(directory: Path, *, fsync: str, variable: str = "REDIS_URL") -> Iterator[Variables]:
    port = _free_port()
    words = f"--bind 127.0.0.1 --port {port} --dir {directory} --appendonly yes --appendfsync"
    with _process("redis-server", *words.split(), fsync, ready="Ready to accept connections"):
        yield {variable: f"redis://127.0.0.1:{port}"}


@contextmanager
def _rabbitmq(directory: Path, *, variable: str) -> Iterator[Variables]:
    port, names, nodes = _free_port(), _free_port(), _free_port()
    (directory / ".erlang.cookie").write_text(os.urandom(16).hex())
    (directory / ".erlang.cookie").chmod(0o400)  # Erlang takes no other
    variables = {
        "HOME": f"{directory}",
        "ERL_EPMD_PORT": f"{names}",
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": f"{port}",
        "RABBITMQ_DIST_PORT": f"{nodes}",
        "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
        "RABBITMQ_LOGS": "-",
        # None of the machine's own: these need not exist.
        "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
        "RABBITMQ_CONF_ENV_FILE": f"{directory}/rabbitmq-env.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
    }
    # The name server is started here: the one that RabbitMQ would start for itself outlives it.
    with (
        _process("epmd", "-port", f"{names}", "-d", ready="epmd running"),
        _process("rabbitmq-server", ready="Server startup complete", **variables),
    ):
        yield {variable: f"amqp://guest:guest@127.0.0.1:{port}//"}


@contextmanager
def _postgres(directory: Path, *, variable: str) -> Iterator[Variables]:
    user = "nobody" if os.getuid() == 0 else None  # Postgres refuses to be root's
    if user:
        shutil.chown(directory, user)

    def do(program: str, *words: str) -> None:
        found = str(shutil.which(program, path=PATH))
        command = [found, "-D", f"{directory}/data", *words]
        # Not to a pipe, which the server would keep open.
        null, seconds = subprocess.DEVNULL, START_SECONDS
        subprocess.run(command, user=user, cwd="/", check=True, stdout=null, timeout=seconds)

    port = _free_port()
    do("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
    do("pg_ctl", "start", "-w", "-l", f"{directory}/log", "-o", options)
    try:
        yield {variable: f"postgresql://postgres@127.0.0.1:{port}/postgres"}
    finally:
        do("pg_ctl", "stop", "-m", "immediate")


REDIS_ALWAYS = Kind("redis-server", "redis-server", partial(_redis, fsync="always"))
REDIS_EVERY_SECOND = Kind("redis-server", "redis-server", partial(_redis, fsync="everysec"))
RABBITMQ = Kind("rabbitmq-server", "rabbitmq-server", partial(_rabbitmq, variable="AMQP_URL"))
# The service reads these variables; a broker's loss is made good, so Redis need not fsync each.
OUR_RABBITMQ = RABBITMQ._replace(running=partial(_rabbitmq, variable="CELERY_BROKER_URL"))
OUR_REDIS = REDIS_EVERY_SECOND._replace(
    running=partial(_redis, fsync="everysec", variable="CELERY_BROKER_URL")
)
POSTGRES = Kind("initdb", "postgresql", partial(_postgres, variable="DATABASE_URL"))
SECOND_POSTGRES = POSTGRES._replace(running=partial(_postgres, variable="SECOND_DATABASE_URL"))


@contextmanager
def _process(program: str, *words: str, ready: str, **variables: str) -> Iterator[None]:
    found = str(shutil.which(program, path=PATH))
    server = serving.Server([found, *words], {**os.environ, **variables})
    try:
        server.wait_for_log(ready, START_SECONDS)
        yield
    finally:
        server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
