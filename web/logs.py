"""Log lines for people, or as JSON for machines; each with its trace id and its task id."""

import json
import logging
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from afterwards.redaction import escaped, shortened, without_addresses, without_credentials
from web.stdout import Gathering

UVICORN = ("uvicorn", "uvicorn.access")
# httpx logs whole URLs, a webhook's secret with them.
TALKATIVE = ("httpx", "httpcore", "aiosqlite", "PIL", "asyncio")


class ForPeople(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO    tasks: text  task=... trace=...`, then any traceback.

    What follows a line break is indented, so that no text can pass for a line of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {_told(record.getMessage())}"
        task_id, trace_id = _ids(record)
        if task_id:
            line += f"  task={task_id}"
        if trace_id:
            line += f"  trace={trace_id}"
        if record.exc_info:
            line += "\n" + _told(self.formatException(record.exc_info))
        return escaped(line).replace("\n", "\n    ")


class ForMachines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and task, trace, exception, if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _told(record.getMessage()),
        }
        task_id, trace_id = _ids(record)
        if task_id:
            line["task"] = task_id
        if trace_id:
            line["trace"] = trace_id
        if record.exc_info:
            line["exception"] = _told(self.formatException(record.exc_info))
        return json.dumps(line)


def configure(
    level: str,
    style: str,
    task_id: Callable[[], str],
    trace_id: Callable[[], str],
    *,
    is_reported: bool = True,
) -> None:
    """Send every log line, uvicorn's too, to stdout in this `style`, "text" or "json".

    `task_id` and `trace_id` are asked at each line, in its own context. Unless lines are reported
    elsewhere too, where they may look otherwise, records lack what neither style shows.
    """
    _put_ids_on_records(task_id, trace_id)
    if not is_reported:
        _make_records_lighter()
    handler = Gathering(sys.stdout)
    handler.set_name("service")
    handler.setFormatter(ForMachines() if style == "json" else ForPeople())
    root = logging.getLogger()
    for other in [each for each in root.handlers if each.name == "service"]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level)
    handler.setLevel(level)  # uvicorn's loggers have levels of their own, and so pass the root's
    for logger in map(logging.getLogger, UVICORN):
        if logger.handlers:  # it has none under --no-access-log
            logger.handlers.clear()
            logger.propagate = True
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _make_records_lighter() -> None:
    # As "Optimization" in Python's HOWTO of logging has it: the place in the code and the process
    # are a fifth of what a line costs.
    logging._srcfile = None
    logging.logMultiprocessing = logging.logProcesses = False


def _put_ids_on_records(task_id: Callable[[], str], trace_id: Callable[[], str]) -> None:
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.task_id, record.trace_id = task_id(), trace_id()
        # Nameless is what logging.makeLogRecord begins with, for a child's line.
        if str(record.name).startswith("uvicorn.") and isinstance(record.args, tuple):
            record.args = tuple(map(_without_query, record.args))
        return record

    logging.setLogRecordFactory(make)


def _without_query(told: object) -> object:
    # Of a path, as uvicorn tells it; people put tokens into queries.
    if isinstance(told, str) and "?" in told and told.startswith("/"):
        return told.partition("?")[0] + "?..."
    return told


def _told(text: str) -> str:
    return without_addresses(without_credentials(shortened(text)))


def _ids(record: logging.LogRecord) -> tuple[str, str]:
    return getattr(record, "task_id", ""), getattr(record, "trace_id", "")


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.created % 1 * 1000):03}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
