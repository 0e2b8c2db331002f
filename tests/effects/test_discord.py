"""What is posted to Discord, and how its rate limit is obeyed."""

import asyncio
import email.utils
import time
import traceback
from collections.abc import AsyncIterator, Callable

import pytest

from effects import discord
from tests.effects.loopback import (
    Asked,
    dripping,
    endless,
    in_turn,
    reply,
    serving,
    silence,
    unused_port,
)

pytestmark = pytest.mark.anyio

SECRET = "/api/webhooks/123/s3cr3t"


async def post(url: str, content: str = "hello", timeout: float = 5) -> None:
    await discord.post(url + SECRET, content, timeout=timeout)


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def test_posted_content_mentions_nobody() -> None:
    async with serving(reply(204)) as server:
        await post(server.url, "hello @everyone 😀")
    asked = server.asked[0]
    assert (asked.method, asked.path) == ("POST", SECRET)
    assert asked.json == {"content": "hello @everyone 😀", "allowed_mentions": {"parse": []}}


@pytest.mark.parametrize(
    ("length", "posted"), [(1999, 1999), (2000, 2000), (2001, 2000), (99_999, 2000)]
)
async def test_long_content_is_visibly_cut(length: int, posted: int) -> None:
    async with serving(reply(204)) as server:
        await post(server.url, "x" * length)
    content = server.asked[0].json["content"]
    assert len(content) == posted
    assert content.endswith("…") == (length > 2000)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Ünïcode 😀 名前", "Ünïcode 😀 名前"),
        ("**bold** _it_ ~~no~~ ||spoiler||", r"\*\*bold\*\* \_it\_ \~\~no\~\~ \|\|spoiler\|\|"),
        ("`code`", r"\`code\`"),
        (r"\*", r"\\\*"),
        ("<#1> @everyone", r"\<\#1\> \@everyone"),
        ("# heading\n> quote\r\n- list", r"\# heading \> quote \- list"),
        ("a\u202egnp-exe\u2066", r"agnp\-exe"),
        ("\ud800", r"\?"),
    ],
)
def test_names_appear_as_typed(name: str, plain: str) -> None:
    assert discord.harmless(name) == plain


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("[click](https://evil.example)", r"\[click\]\(https\: \/\/evil\. example\)"),
        ("<@123> <:smile:1>", r"\< \@123\> \<\:smile\: 1\>"),
        ("www.evil.example", r"www\. evil\. example"),
        ("discord\u202e.gg/x", r"discord\. gg\/x"),
    ],
)
def test_links_appear_as_plain_text(name: str, plain: str) -> None:
    assert discord.harmless(name) == plain


async def test_half_a_character_can_be_posted() -> None:
    async with serving(reply(204)) as server:
        await post(server.url, discord.harmless("a\ud83dz"))
    assert server.asked[0].json["content"] == r"a\?z"


@pytest.mark.parametrize(
    "limited",
    [
        reply(429, retry_after="0.05"),
        reply(429, b'{"retry_after": 0.05}'),
        reply(429, b"[]", retry_after="-3"),
    ],
)
async def test_a_rate_limit_is_waited_out(limited: bytes) -> None:
    async with serving(in_turn(limited, limited, reply(204))) as server:
        await post(server.url)
    assert len(server.asked) == 3


async def test_waits_last_as_discord_says() -> None:
    async with serving(in_turn(reply(429, retry_after="0.2"), reply(204))) as server:
        start = time.monotonic()
        await post(server.url)
    assert time.monotonic() - start >= 0.2


async def test_past_dates_are_not_waited_for() -> None:
    limited = reply(429, retry_after=email.utils.formatdate(time.time() - 60, usegmt=True))
    async with serving(in_turn(limited, reply(204))) as server:
        await post(server.url)
    assert len(server.asked) == 2


async def test_the_header_overrules_the_body() -> None:
    limited = reply(429, b'{"retry_after": 50000}', retry_after="0.01")
    async with serving(in_turn(limited, reply(204))) as server:
        await post(server.url)
    assert len(server.asked) == 2


async def test_three_limited_tries_are_an_error() -> None:
    async with serving(reply(429, retry_after="0.02")) as server:
        with pytest.raises(discord.DiscordRateLimited) as caught:
            await post(server.url)
    assert len(server.asked) == 3
    assert caught.value.retry_after == 0.02


@pytest.mark.parametrize("said", [b'{"retry_after": 64.57}', b'{"retry_after": "64.57"}'])
async def test_too_long_waits_fail_at_once(said: bytes) -> None:
    async with serving(reply(429, said)) as server:
        start = time.monotonic()
        with pytest.raises(discord.DiscordRateLimited) as caught:
            await post(server.url)
    assert caught.value.retry_after == 64.57
    assert time.monotonic() - start < 1
    assert len(server.asked) == 1


async def test_dates_are_told_in_seconds() -> None:
    async with serving(
        reply(429, retry_after=email.utils.formatdate(time.time() + 600, usegmt=True))
    ) as server:
        with pytest.raises(discord.DiscordRateLimited) as caught:
            await post(server.url)
    assert 590 < caught.value.retry_after <= 600


@pytest.mark.parametrize(
    "header", ["", "soon", "nan", "inf", "1e999", "Mon, 99 Foo 2026 99:99:99 GMT"]
)
@pytest.mark.parametrize(
    "body", [b"", b"null", b'{"retry_after": null}', b'{"retry_after": NaN}', b"\xff", b"<html>"]
)
async def test_untimed_rate_limits_wait_one_second(header: str, body: bytes) -> None:
    async with serving(reply(429, body, retry_after=header)) as server:
        with pytest.raises(discord.DiscordRateLimited) as caught:
            await post(server.url, timeout=0.9)
    assert caught.value.retry_after == discord.UNKNOWN_WAIT


@pytest.mark.parametrize("status", [301, 400, 401, 404, 500, 503])
async def test_any_other_answer_is_a_refusal(status: int) -> None:
    async with serving(reply(status, b"no", location="/elsewhere")) as server:
        with pytest.raises(discord.DiscordRefused) as caught:
            await post(server.url)
    assert caught.value.status == status
    assert len(server.asked) == 1
    assert "s3cr3t" not in shown(caught.value)


async def test_an_endless_answer_is_not_read() -> None:
    async with serving(lambda _: endless(b"HTTP/1.1 500 No\r\n\r\n", bytes(9999))) as server:
        with pytest.raises(discord.DiscordRefused):
            await post(server.url, timeout=30)
    async with serving(lambda _: endless(b"HTTP/1.1 200 Yes\r\n\r\n", bytes(9999))) as server:
        await post(server.url, timeout=30)


async def test_deeply_nested_answers_name_no_time() -> None:
    async with serving(reply(429, b"[" * 60_000)) as server:
        with pytest.raises(discord.DiscordRateLimited) as caught:
            await post(server.url, timeout=0.9)
    assert caught.value.retry_after == discord.UNKNOWN_WAIT


async def test_an_unreachable_error_hides_the_url() -> None:
    with pytest.raises(
        discord.DiscordUnreachable, match=r"^Discord gave no answer \(ConnectError\)$"
    ) as caught:
        await post(f"http://127.0.0.1:{unused_port()}")
    assert caught.value.__suppress_context__
    assert "s3cr3t" not in shown(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://x",
        "http://[",
        "http://x:y",
        "http://127.0.0.1:99999",
        "http://\n",
        "http://\ud800",
    ],
)
async def test_invalid_urls_are_unreachable_and_hidden(url: str) -> None:
    with pytest.raises(discord.DiscordUnreachable) as caught:
        await post(url)
    assert "s3cr3t" not in shown(caught.value)


@pytest.mark.parametrize("talk", [silence, lambda: dripping(b"HTTP/1.1 200 OK\r\n\r\n", b".")])
async def test_unfinished_answers_time_out_as_unreachable(
    talk: Callable[[], AsyncIterator[bytes]],
) -> None:
    async with serving(lambda _: talk()) as server:
        with pytest.raises(discord.DiscordUnreachable) as caught:
            await post(server.url, timeout=0.1)
    assert "s3cr3t" not in shown(caught.value)


async def test_a_cancelled_post_stays_cancelled() -> None:
    asked = asyncio.Event()

    def limited(_: Asked) -> bytes:
        asked.set()
        return reply(429, retry_after="4")

    async with serving(limited) as server:
        task = asyncio.create_task(post(server.url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
