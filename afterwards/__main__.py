"""`python -m afterwards`: run tasks without a web server, look at them, look after the tables."""

import os
import sys
import traceback
from collections.abc import Sequence

from afterwards.commands import Complaint
from afterwards.commands.parsing import PROGRAM, parse
from afterwards.errors import DatabaseUnavailable
from afterwards.redaction import in_a_line

INTERRUPTED = 130  # as a shell says it of what Ctrl-C has ended


def main(words: Sequence[str]) -> int:
    """Do what the words ask for; return the exit status, 2 where they are wrong."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # both are texts
    arguments = parse(words)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except Complaint as complaint:
        if complaint.__cause__ is not None:
            traceback.print_exception(complaint.__cause__)
        return _complain(complaint, complaint.status)
    except DatabaseUnavailable as error:
        return _complain(f"the database is unavailable: {error}", 1)
    except BrokenPipeError:  # `tasks list | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(about: object, status: int) -> int:
    print(f"{PROGRAM}: {in_a_line(str(about))}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
