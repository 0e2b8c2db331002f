"""A new task's row, as a worker makes it."""

from typing import Any

from afterwards.model import new_task_id


def row(**changed: Any) -> dict[str, Any]:
    """Make a row of a task that is due at once, but for what is given."""
    return {
        "id": new_task_id(),
        "name": "nothing",
        "arguments": "{}",
        "in_thread": False,
        "carrier": "",
        "max_attempts": 5,
        "worker": None,
        "follows": None,
        "delay_us": 0,
        "publish_after_us": 0,
    } | changed
