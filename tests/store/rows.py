"""A new task's row, as a worker makes it."""

from typing import Any

from afterwards.model import new_task_id
from afterwards.store.given import NewRow


def row(**changed: Any) -> NewRow:
    """Make a row of a task that is due at once, but for what is given."""
    due = NewRow(new_task_id(), "nothing", "{}", False, "", 5, None, None, 0, 0)
    return due._replace(**changed)
