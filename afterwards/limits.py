"""The options of one process, with their defaults and their checks."""

from dataclasses import dataclass, fields

LARGEST = 1e9
SHORTEST = 0.001  # seconds that an attempt may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The options; a wrong one is a ValueError that names it."""

    max_running: int = 1000  # coroutines at a time
    threads: int = 8  # plain functions at a time
    timeout: float = 60.0  # seconds; for task functions that set none
    max_queued: int = 100_000  # tasks that may wait for a slot before new ones are refused
    keep_days: float = 7.0  # for which what has succeeded, or was cancelled, is kept
    keep_dead_days: float = 30.0  # for which what is dead waits for a person

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check(field.name, value, is_whole=field.type is int, least=_LEAST.get(field.name, 0))


_LEAST = {"max_running": 1, "threads": 1, "timeout": SHORTEST}


def check(name: str, value: object, *, is_whole: bool = False, least: float = 0) -> None:
    """Raise a ValueError that names the option, unless its value is a number from `least` on."""
    is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= LARGEST:  # type: ignore[operator]  # it is a number
        kind = "a whole number" if is_whole else "a number"
        raise ValueError(f"{name}: {value!r} is wrong, it takes {kind} from {least:g} on")
