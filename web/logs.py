"""Log lines for people, or as JSON for machines; each with its trace id and its task id."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from afterwards.redaction import escaped, shortened, without_credentials

UVICORN = ("uvicorn", "uvicorn.access")
# httpx logs whole URLs, a webhook's secret with them.
TALKATIVE = ("httpx", "httpcore", "aiosqlite", "PIL", "asyncio")


class ForPeople(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO    tasks: text  task=... trace=...`, then any traceback.

    What follows a line break is indented, so that no text can pass for a line of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {_told(record.getMessage())}"
        line += "".join(f"  {key}={value}" for key, value in _ids(record).items())
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
            **_ids(record),
        }
        if record.exc_info:
            line["exception"] = _told(self.formatException(record.exc_info))
        return json.dumps(line)


def configure(
    level: str, style: str, task_id: Callable[[], str], trace_id: Callable[[], str]
) -> None:
    """Send every log line, uvicorn's too, to stdout in this `style`, "text" or "json".

    `task_id` and `trace_id` are asked at each line, in its own context.
    """
    _put_ids_on_records(task_id, trace_id)
    handler = logging.StreamHandler(sys.stdout)
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
    if not isinstance(told, str) or not told.startswith("/") or "?" not in told:
        return told
    return told.partition("?")[0] + "?..."


def _told(text: str) -> str:
    return without_credentials(shortened(text))


def _ids(record: logging.LogRecord) -> dict[str, str]:
    ids = {"task": getattr(record, "task_id", ""), "trace": getattr(record, "trace_id", "")}
    return {key: value for key, value in ids.items() if value}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
