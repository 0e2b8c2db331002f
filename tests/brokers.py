"""Real brokers on loopback, and a stand-in for Amazon's: each has ports and a directory of its own.

A test may kill one and start it again.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SERVERS = {
    # Not the wrapper that Debian puts into the PATH, which changes the user.
    "rabbitmq": Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    "sqs": Path(sys.executable).parent / "moto_server",
    "redis": Path(shutil.which("redis-server") or "/usr/bin/redis-server"),
}
GREETINGS = {
    "rabbitmq": b"AMQP\x00\x00\x09\x01",
    "redis": b"PING\r\n",
    "sqs": b"GET / HTTP/1.0\r\n\r\n",
}
START_SECONDS = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Broker:
    """A broker's process; `url` is what `CELERY_BROKER_URL` takes."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._directory = directory
        self._beside: list[subprocess.Popen[bytes]] = []
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
        if kind == "rabbitmq":
            self.url = f"amqp://guest:guest@{self.address}//"
            self._command = [str(SERVERS[kind])]
            self._prepare_rabbitmq()
        elif kind == "sqs":
            self.url = f"sqs://key:hunter2@{self.address}"
            self._command = [str(SERVERS[kind]), "-H", "127.0.0.1", "-p", str(self.port)]
        else:
            self.url = f"redis://{self.address}/0"
            self._command = [
                str(SERVERS[kind]),
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ]
        self._log = (directory / "log").open("ab")

    def start(self) -> None:
        """Start it, and wait until it takes connections that speak its protocol."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.1)

    def signal(self, sign: int) -> None:
        os.killpg(self._process.pid, sign)

    def kill(self) -> None:
        """Kill it as the kernel does; what it held in memory is lost."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for each in self._beside:
            each.kill()
            each.wait()
        self._log.close()

    def is_up(self) -> bool:
        """Tell whether it takes connections, and speaks its protocol."""
        greeting = GREETINGS[self.kind]
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
        ):
            connection.sendall(greeting)
            return bool(connection.recv(1))
        return False

    def _prepare_rabbitmq(self) -> None:
        directory, epmd_port = self._directory, free_port()
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").write_text(f"listeners.tcp.local = {self.address}\n")
        self._environ |= {
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_LOG_BASE": f"{directory}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # Erlang's directory of nodes: its own daemon would outlive the tests.
        epmd = shutil.which("epmd", path=f"{os.environ['PATH']}:/usr/lib/erlang/bin") or "epmd"
        self._beside.append(subprocess.Popen([epmd, "-port", str(epmd_port)], env=self._environ))
