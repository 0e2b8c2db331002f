"""A call that must not break the service, whatever becomes of the trace."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger("tracing")

T = TypeVar("T")

_complaints: set[str] = set()


def guarded(call: Callable[..., T], *args: Any) -> T | None:
    """Call what must not break the service, whatever becomes of the trace; say so once."""
    try:
        return call(*args)
    except Exception:
        if call.__qualname__ not in _complaints:
            _complaints.add(call.__qualname__)
            log.warning(
                "tracing failed in %s and is left out of it; said once",
                call.__qualname__,
                exc_info=True,
            )
        return None
