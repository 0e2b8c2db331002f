"""What others are made with: arguments of the library and of the door, from the settings."""

from typing import Any

from settings.kinds import parted
from settings.table import Settings

LOOPBACK = ["localhost", "*.localhost", "127.0.0.1", "[::1]"]

# Bytes of a body: it is checked on the event loop, where a mebibyte of fields takes a second.
MAX_BODY = 16 * 1024


def for_afterwards(settings: Settings) -> dict[str, Any]:
    """Return what `Afterwards` is made with."""
    return {
        "url": settings.database_url,
        "broker": settings.celery_broker_url,
        "run_tasks": settings.run_tasks,
        "max_running": settings.max_running,
        "threads": settings.task_threads,
        "timeout": settings.request_timeout,
        "max_queued": settings.max_queued,
        "keep_days": settings.keep_days,
        "keep_dead_days": settings.keep_dead_days,
        "secret_key": settings.task_secret_key and settings.task_secret_key.split(","),
        "drain_seconds": settings.drain_seconds,
        "max_keyed_body": MAX_BODY,
    }


def for_operators(settings: Settings) -> dict[str, Any]:
    """Return what `Operators` are made with."""
    return {
        "token": parted(settings.admin_token),
        "read_token": parted(settings.admin_read_token),
        "development": settings.development,
    }


def allowed_hosts(settings: Settings) -> list[str]:
    """Return the names that this service answers to; any, if there are none."""
    return listed(settings.allowed_hosts) or (LOOPBACK if settings.development else [])


def listed(text: str | None) -> list[str]:
    """Return what a setting of names lists, in lower case."""
    return [each.lower() for each in parted(text)]
