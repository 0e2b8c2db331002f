"""An exception in words: its kind, its message, and where it happened, all within bounds."""

import traceback

STACK_FRAMES, PIECE_LENGTH, STACK_LENGTH = 20, 1_000, 16_000  # frames, characters, characters


def kind_of(error: BaseException) -> str:
    """Name the class, with its module unless that is builtins."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def message_of(error: BaseException) -> str:
    """Return the text, even of an exception whose text raises."""
    try:
        return str(error)[:PIECE_LENGTH]
    except Exception:
        return "(its text cannot be had)"


def stack_of(error: BaseException) -> str:
    """Return the traceback with its innermost frames, where it failed, within bounds."""
    told = traceback.TracebackException(
        type(error), error, error.__traceback__, limit=-STACK_FRAMES, compact=True
    )
    return "".join(piece[:PIECE_LENGTH].rstrip("\n") + "\n" for piece in told.format())[
        -STACK_LENGTH:
    ]


def in_words(error: BaseException) -> str:
    """Return kind and message on one line."""
    return f"{kind_of(error)}: {' '.join(message_of(error).split())[:300]}"
