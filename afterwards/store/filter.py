"""Which tasks a person means."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Filter:
    """All tasks, or those of a state, of a name, with an error and created before a moment.

    `error` is a part of the error's kind or message. `before` must have a time zone.
    """

    state: str | None = None
    name: str | None = None
    error: str | None = None
    before: datetime | None = None

    def __post_init__(self) -> None:
        if self.before is not None and self.before.tzinfo is None:
            raise ValueError(f"before: {self.before.isoformat()} takes a time zone, such as +00:00")

    def condition(self) -> tuple[str, Mapping[str, Any]]:
        """Return the condition as SQL, and the values of its parameters."""
        # Postgres takes no NUL in a text; there is none in any, so another such character will do.
        given = {
            name: value.replace("\0", "\ufffd")
            for name in ("state", "name", "error")
            if (value := getattr(self, name)) is not None
        }
        values: dict[str, Any] = dict(given)
        if self.before is not None:
            values["before"] = (self.before - EPOCH) // timedelta(microseconds=1)
        return " AND ".join(["1 = 1", *(CONDITIONS[name] for name in values)]), values


CONDITIONS = {
    "state": "state = :state",
    "name": "name = :name",
    "error": "({position}(coalesce(error_kind, ''), :error) > 0"
    " OR {position}(coalesce(error_message, ''), :error) > 0)",
    "before": "created_at < :before",
}
