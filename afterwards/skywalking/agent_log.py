"""The agent's own log lines: in one line each, without a traceback, and one for each trouble."""

import functools
import logging
import re
import time

from afterwards.skywalking.failure import in_words

CALM_SECONDS = 10  # between two lines about the same trouble, unless the agent backs off for longer

_quiet_until: dict[str, float] = {}


def calm(agents_log: logging.Logger, collector: str) -> None:
    """Let the agent's lines go the way of all others, and one of them for each trouble."""
    agents_log.handlers.clear()
    agents_log.propagate = True
    agents_log.addFilter(functools.partial(_in_one_line, collector))


def _in_one_line(collector: str, record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is None and record.levelno < logging.WARNING:
        return True
    if str(record.msg).startswith("Plugin %s failed"):  # its library is absent, as some thirty are
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
    text = record.getMessage()
    retry = re.search(r"retry in ([\d.]+) seconds", text)
    if error is not None:
        text = _trouble(collector, text, error) + (
            f"; trying again in {float(retry[1]):g} s" if retry else ""
        )
    record.msg, record.args, record.exc_info = text, (), None
    return _is_due(re.sub(r"\d.*", "", text), max(CALM_SECONDS, float(retry[1]) if retry else 0))


def _trouble(collector: str, text: str, error: BaseException) -> str:
    if hasattr(error, "code") and hasattr(error, "details"):  # gRPC's
        reason = (
            f"{getattr(error.code(), 'name', '')} {' '.join(str(error.details()).split())[:200]}"
        )
        return f"SkyWalking's collector at {collector} does not answer ({reason})"
    return f"{text.partition(',')[0]}: {in_words(error)}"


def _is_due(trouble: str, seconds: float) -> bool:
    now = time.monotonic()
    if now < _quiet_until.get(trouble, now):
        return False
    _quiet_until[trouble] = now + seconds
    return True
