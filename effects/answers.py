"""The start of an HTTP answer, however long it is."""

from typing import Final

import httpx

MAX_ANSWER: Final = 64 * 1024  # bytes; the rest is dropped

# What is compressed would have to be unpacked before it can be counted.
AS_IT_IS: Final = {"Accept-Encoding": "identity"}


async def start_of(response: httpx.Response) -> bytes:
    """Read at most MAX_ANSWER of a streamed answer; return nothing if it is encoded, unasked."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece[: MAX_ANSWER - len(body)]
        if len(body) >= MAX_ANSWER:
            break
    return b"" if "content-encoding" in response.headers else bytes(body)
