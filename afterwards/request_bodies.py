"""How long a request's body may be, and may take: refused unread, or while it is read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope

from afterwards.problems import Problem

# For a whole body: uvicorn's shutdown waits for a client that never sends the rest.
READING_SECONDS = 10.0


def announced(scope: Scope) -> int | None:
    """Return the bytes that the request's head announces; None where it does not say."""
    lengths = (value for name, value in scope["headers"] if name == b"content-length")
    length = next(lengths, b"")
    # Twenty digits are too long for anybody, and int() takes the square of their number.
    return int(length.lstrip(b"0")[:20] or b"0") if length.isdigit() else None


def too_large(most: int) -> Problem:
    """Make the `Problem`, 413, of a body of more than so many bytes."""
    detail = f"A body may have {most} bytes at most here."
    return Problem(413, detail, headers={"Connection": "close"})


def counted(receive: Receive, most: int) -> Receive:
    """Have whoever reads the body raise a `Problem`, 413, at more than so many bytes."""
    left = most

    async def receive_counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(most)
        return message

    return receive_counted


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raise a `Problem`, 408, if the block takes ten seconds to read a body."""
    try:
        async with asyncio.timeout(READING_SECONDS):
            yield
    except TimeoutError:
        detail = f"The body was not there after {READING_SECONDS:g} s."
        raise Problem(408, detail, headers={"Connection": "close"}) from None
