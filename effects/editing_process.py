"""The process that edits one picture: it comes in on stdin, and goes out on stdout.

A process, because memory is limited by process, and nothing can stop a thread. Its start takes some
90 ms of computing.
"""

import resource
import signal
import sys

from effects.editing import process
from effects.pictures import ImageError

MAX_MEMORY = 180 * 1024 * 1024  # bytes of data; the interpreter and the libraries add 15 MB
MAX_SECONDS = 30  # of computing; the scans that fit into 10 MiB of JPEG would take hours


def main() -> None:
    """Edit the picture on stdin: the result to stdout, its extension or the error to stderr."""
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    # At the first SIGXCPU, then SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Platforms and terminals signal every process, but this one ends when its parent wants it to.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        result, extension = process(sys.stdin.buffer.read(), sys.argv[1:])  # type: ignore[arg-type]
    except ImageError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(result)
    sys.stderr.write(extension)
