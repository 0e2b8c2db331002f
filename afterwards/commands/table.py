"""How tasks look at a terminal."""

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from afterwards.redaction import escaped, in_a_line
from afterwards.telling import told_to_operators

HEADER = ("ID", "STATE", "TRY", "AGE", "NAME", "ERROR")
GAP, INDENT = "  ", "    "
NAME_LEAST, ERROR_LEAST = 8, 24  # characters; where there is no room the error has its own line
MICROSECONDS = 1_000_000


def cells(row: Any, now: float) -> Sequence[str]:
    """Return what the table says of a task; `now` is in seconds since 1970."""
    age = age_in_words(now - row.created_at / MICROSECONDS)
    error = "" if row.error_kind is None else in_a_line(f"{row.error_kind}: {row.error_message}")
    attempt = f"{row.attempt}/{row.max_attempts}"
    return row.id, row.state, attempt, age, in_a_line(row.name), error


def table(tasks: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Lay out the cells in lines of at most `width` columns; without one nothing is cut."""
    widths = [max(map(_width, column)) for column in zip(HEADER, *tasks, strict=True)]
    *fixed, name, error = widths
    left = (sum(widths) + 99 if width is None else width) - sum(fixed) - len(GAP) * len(fixed)
    room = left - min(name, max(NAME_LEAST, left - ERROR_LEAST - len(GAP))) - len(GAP)
    is_beside = room >= min(error, ERROR_LEAST)
    name = left - room - len(GAP) if is_beside else min(name, max(NAME_LEAST, left))
    for *texts, cause in [HEADER, *tasks]:
        shown = [_padded(text, wide) for text, wide in zip(texts, [*fixed, name], strict=True)]
        line = GAP.join(shown)
        yield (f"{line}{GAP}{_cut(cause, room)}" if is_beside else line).rstrip()
        if cause and not is_beside and cause != HEADER[-1]:
            yield INDENT + _cut(cause, (width or 0) - len(INDENT))


def age_in_words(seconds: float) -> str:
    """Say how old something is, in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def told(row: Any) -> dict[str, Any]:
    """Return all that is known of a task, as JSON has it."""
    return {**told_to_operators(row), "worker": row.worker}


def as_json(what: Mapping[str, Any]) -> str:
    """Write one line of JSON that drives no terminal."""
    return json.dumps(what).replace("\x7f", "\\u007f")


def page(row: Any) -> Iterator[str]:
    """Tell all that is known of a task, for a person."""
    said = told(row)
    error = said.pop("error")
    said["error"] = f"{error['kind']}: {error['message']}" if error else None
    for name in ("arguments", "result"):
        said[name] = None if said[name] is None else json.dumps(said[name], ensure_ascii=False)
    wide = max(map(len, said))
    for name, value in said.items():
        if value is not None:
            text = escaped(str(value)).replace("\n", "\n" + " " * (wide + len(GAP)))
            yield f"{name:<{wide}}{GAP}{text}"


def _padded(text: str, wide: int) -> str:
    shown = _cut(text, wide)
    return shown + " " * (wide - _width(shown))


def _cut(text: str, wide: int) -> str:
    if _width(text) <= wide:
        return text
    while _width(text) > wide - 1:
        text = text[: min(len(text) - 1, wide)]
    return text + "…"


def _width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
