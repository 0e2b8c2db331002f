"""One message to a Discord webhook, within one time limit, rate limits obeyed.

DiscordError
  DiscordUnreachable    no answer
  DiscordRateLimited    429, and the wait does not fit: try again after `retry_after` seconds
  DiscordRefused        any other answer outside 2xx: see `status`
"""

import asyncio
import email.utils
import json
import math
import re
import time
from typing import Any, Final

import httpx

from effects import answers, tls
from effects.one_line import without_links

MAX_CONTENT = 2000  # characters; Discord refuses more
MAX_TRIES = 3
UNKNOWN_WAIT = 1.0  # seconds, after a 429 that names none

# Discord's own rule for a backslash: it makes plain whatever is neither letter, digit nor space.
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


class DiscordError(Exception):
    """The message was not posted; no error's text holds the webhook's URL, which is a secret."""


class DiscordUnreachable(DiscordError):
    """Discord gave no answer."""


class DiscordRateLimited(DiscordError):
    """Discord asks to wait longer than the call may last."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"Discord asks to wait {retry_after:g} s")
        self.retry_after: Final = retry_after


class DiscordRefused(DiscordError):
    """Discord answered, but not with a success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Discord answered {status}")
        self.status: Final = status


def harmless(text: str) -> str:
    """Show markdown and mentions in a stranger's text as typed, on one line, and links as text."""
    return _PUNCTUATION.sub(r"\\\1", without_links(text))


async def post(webhook_url: str, content: str, *, timeout: float) -> None:
    """Post content, cut at 2,000 characters, that mentions nobody.

    Waits out a 429 and tries again, three times at most and never longer than `timeout` seconds in
    all. Raises DiscordRateLimited, DiscordRefused, DiscordUnreachable.
    https://discord.com/developers/docs/topics/rate-limits
    """
    deadline = asyncio.get_running_loop().time() + timeout
    body = {"content": _cut(content), "allowed_mentions": {"parse": []}}
    client = httpx.AsyncClient(
        verify=tls.verifying(), trust_env=False, timeout=timeout, headers=answers.AS_IT_IS
    )
    try:
        async with asyncio.timeout_at(deadline), client:
            response = await _patiently(client, webhook_url, body, deadline)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ExceptionGroup) as error:
        # A group, for instance, when the port is over 65535: anyio connects in a task group.
        raise DiscordUnreachable(f"Discord gave no answer ({type(error).__name__})") from None
    if not response.is_success:
        raise DiscordRefused(response.status_code)


async def _patiently(
    client: httpx.AsyncClient, url: str, body: object, deadline: float
) -> httpx.Response:
    for tries_left in reversed(range(MAX_TRIES)):
        async with client.stream("POST", url, json=body) as response:
            answer = await answers.start_of(response)
        if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        wait = _wait(response, answer)
        if not tries_left or asyncio.get_running_loop().time() + wait >= deadline:
            raise DiscordRateLimited(wait)
        await asyncio.sleep(wait)
    return response


def _cut(content: str) -> str:
    return content if len(content) <= MAX_CONTENT else content[: MAX_CONTENT - 1] + "…"


def _wait(response: httpx.Response, answer: bytes) -> float:
    # The header first: on old routes the body's is in milliseconds (discord-api-docs#4722).
    header = response.headers.get("retry-after", "")
    for said in (_seconds(header), _until(header), _in_body(answer)):
        if said is not None:
            return said
    return UNKNOWN_WAIT


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str) -> float | None:
    parsed = email.utils.parsedate_tz(date)
    try:
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())
    except (ValueError, OverflowError):
        return None


def _in_body(answer: bytes) -> float | None:
    try:
        return _seconds(json.loads(answer)["retry_after"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
