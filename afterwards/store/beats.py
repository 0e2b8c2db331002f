"""Since when the workers' counts of beats stand still, as somebody sees who looks at times."""

from collections.abc import Mapping

# Each worker's count of beats, and since when it stands still, by a watcher's monotonic clock.
Seen = dict[str, tuple[int, float]]


def seen_now(before: Seen, beats: Mapping[str, int], now: float) -> Seen:
    """Return what is seen of the workers there are: a count that has changed stands still anew."""
    return {
        id: before[id] if before.get(id, (-1,))[0] == count else (count, now)
        for id, count in beats.items()
    }
