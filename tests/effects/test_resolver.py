"""Looking up names that strangers give, some of which nobody ever answers for."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from effects import discord, images, resolver
from tests.effects.loopback import reply, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let lookups of *.hangs.example wait until the test's end; give the names asked for."""
    answer, asked, ask = threading.Event(), [], socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".hangs.example"):
            asked.append(host)
            answer.wait(60)
            raise socket.gaierror("nobody answered")
        return ask(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join()


async def fetched(number: int) -> images.ImageUnfetchable:
    with pytest.raises(images.ImageUnfetchable) as caught:
        await images.fetch(f"http://{number}.hangs.example/", seconds=60)
    return caught.value


async def test_messages_overtake_sixty_hanging_names(unanswered: list[str]) -> None:
    async with serving(reply(204)) as server:
        orders = [asyncio.create_task(fetched(number)) for number in range(60)]
        # That for which no thread was left.
        await asyncio.wait(orders, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert unanswered
        await discord.post(server.url.replace("127.0.0.1", "localhost"), "hello", timeout=30)
        assert len(server.asked) == 1
    assert len(await asyncio.gather(*orders)) == 60


async def test_hanging_names_get_limited_threads(unanswered: list[str]) -> None:
    before = threading.active_count()
    await asyncio.gather(*(fetched(number) for number in range(60)))
    assert len(unanswered) == threading.active_count() - before == resolver.MAX_LOOKUPS


async def test_lookups_fail_while_all_threads_hang(unanswered: list[str]) -> None:
    await asyncio.gather(*(fetched(number) for number in range(resolver.MAX_LOOKUPS)))
    with pytest.raises(OSError, match="too many names"):
        await resolver.resolve("localhost", 80)


async def test_one_thread_left_is_enough(unanswered: list[str]) -> None:
    await asyncio.gather(*(fetched(number) for number in range(resolver.MAX_LOOKUPS - 1)))
    for _ in range(3):
        assert "127.0.0.1" in await resolver.resolve("127.0.0.1", 80)


async def test_addressless_names_free_their_thread() -> None:
    for _ in range(resolver.MAX_LOOKUPS + 1):
        with pytest.raises((OSError, UnicodeError)):
            await resolver.resolve("a..b", 80)
