"""`python -m afterwards` in a process of its own, with or without a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress

from tests.serving import KEPT, ROOT

COMMAND = [sys.executable, "-m", "afterwards"]


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal, and return how it ended and what it said."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT,
        env=_environ(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def at_terminal(*words: str, types: str = "", columns: int = 80) -> tuple[int, str]:
    """Run the command at a terminal where a person types this; return its status and the screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=ROOT,
            env=_environ({}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, types.encode())
        return process.wait(120), _screen(ours)
    finally:
        os.close(ours)


def _screen(terminal: int) -> str:
    said = b""
    with suppress(OSError):  # so Linux says that nobody writes any more
        while part := os.read(terminal, 65_536):
            said += part
    return said.decode()


def _environ(variables: dict[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ} | variables
