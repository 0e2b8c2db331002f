"""A moment as RFC 3339 writes it: in UTC, with microseconds."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime.fromtimestamp(0, UTC)


def rfc3339(moment: datetime | int) -> str:
    """Write a moment in UTC; an int is microseconds since 1970, as the database keeps it."""
    if isinstance(moment, int):
        moment = EPOCH + timedelta(microseconds=moment)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
