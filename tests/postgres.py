"""A Postgres server of the tests' own, which they may freeze and stop."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.brokers import free_port


class Postgres:
    """A server in `directory`, which starts at once."""

    def __init__(self, directory: Path) -> None:
        self._bin = max(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
        )
        self._data = directory / "data"
        # Postgres refuses to be root's.
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(directory, self._user)
        self._port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-D", f"{self._data}")
        self.start()

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += " -c unix_socket_directories=''"
        log = self._data / "log"
        self._run("pg_ctl", "start", "-w", "-D", f"{self._data}", "-l", f"{log}", "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", f"{self._data}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, sign: signal.Signals) -> None:
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        for pid in [
            postmaster,
            *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()),
        ]:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)

    def _run(self, *command: str) -> None:
        command = (str(self._bin / command[0]), *command[1:])
        subprocess.run(
            command, user=self._user, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60
        )


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop()
    yield
    postgres.start()
