"""Look up the names of untrusted URLs, in threads of their own, because a lookup may hang."""

import asyncio
import socket
import threading
from concurrent.futures import Future
from typing import Any, Final

SECONDS: Final = 2.0
# An unanswered lookup keeps its thread as long as the system's resolver tries: 10 s and more.
MAX_LOOKUPS: Final = 16

_slots = threading.BoundedSemaphore(MAX_LOOKUPS)


async def resolve(host: str, port: int) -> list[str]:
    """Return a host's addresses, in the system's order of preference, within 2 s.

    Raises OSError for a name that has none, or none in time, and when MAX_LOOKUPS are under way.
    """
    # The event loop's own lookups, such as the mail server's, share few threads: two with uvloop.
    if not _slots.acquire(blocking=False):
        raise OSError("too many names are being looked up")
    lookup: Future[list[Any]] = Future()
    # From here on, a waiter that is cancelled leaves it alone.
    lookup.set_running_or_notify_cancel()
    try:
        # A daemon, which a process that ends does not wait for.
        arguments = (lookup, host, port)
        threading.Thread(target=_look_up, args=arguments, name="lookup", daemon=True).start()
    except RuntimeError:
        _slots.release()
        raise OSError("there is no thread for the lookup") from None
    async with asyncio.timeout(SECONDS):
        found = await asyncio.wrap_future(lookup)
    return [_with_scope(*sockaddr) for *_, sockaddr in found]


def _look_up(lookup: Future[list[Any]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:
        _slots.release()
        lookup.set_exception(error)
    else:
        _slots.release()
        lookup.set_result(found)


def _with_scope(address: str, _port: int, _flow: int = 0, scope: int = 0) -> str:
    return f"{address}%{scope}" if scope and "%" not in address else address
