"""Passwords are kept as slow hashes, which hold nothing up but who waits for them."""

import asyncio
import statistics
import time

import pytest
from argon2 import PasswordHasher

from afterwards.problems import Problem
from web import passwords

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse"


async def test_only_the_password_is_right() -> None:
    kept = await passwords.hashed(PASSWORD)
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.is_right(PASSWORD, kept)
    for wrong in ("", "Correct horse", PASSWORD + " ", PASSWORD + "\0", PASSWORD + "x" * 200):
        assert not await passwords.is_right(wrong, kept)
    assert kept != await passwords.hashed(PASSWORD)


@pytest.mark.parametrize("kept", [None, "", "plain", "$argon2id$", passwords.NOBODYS])
async def test_without_a_hash_nothing_is_right(kept: str | None) -> None:
    for password in ("", PASSWORD, str(kept)):
        assert not await passwords.is_right(password, kept)


async def test_forms_of_a_letter_are_one() -> None:
    kept = await passwords.hashed("p\xe4sswort")
    assert await passwords.is_right("pa\u0308sswort", kept)
    assert not await passwords.is_right("passwort", kept)
    assert not await passwords.is_right("p\xe4\u0308sswort", kept)


async def test_an_unknown_user_takes_as_long() -> None:
    kept = await passwords.hashed(PASSWORD)
    # In CPU time, which others on this machine do not add to; the least that it takes.
    known = [await cpu_seconds("wrong", kept) for _ in range(9)]
    unknown = [await cpu_seconds("wrong", None) for _ in range(9)]
    too_long = [await cpu_seconds("x" * 200, kept) for _ in range(9)]
    for times in (unknown, too_long):
        assert 0.5 < min(times) / min(known) < 2
        assert statistics.median(times) > min(known) / 2


async def cpu_seconds(password: str, kept: str | None) -> float:
    began = time.process_time()
    assert not await passwords.is_right(password, kept)
    return time.process_time() - began


def test_nobodys_hash_is_made_as_ours_are() -> None:
    assert not passwords.is_dated(passwords.NOBODYS)
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    assert passwords.is_dated(weak.hash(PASSWORD))


async def test_a_hash_leaves_the_loop_free() -> None:
    kept = await passwords.hashed(PASSWORD)
    for work in (passwords.hashed(PASSWORD), passwords.is_right(PASSWORD, kept)):
        task = asyncio.create_task(work)
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10
        await task


async def test_a_flood_is_refused_early() -> None:
    many = passwords.MOST + 20
    results = await asyncio.gather(
        *(passwords.is_right(PASSWORD, None) for _ in range(many)), return_exceptions=True
    )
    refused = [each for each in results if isinstance(each, Problem)]
    assert {each.status_code for each in refused} == {503}
    assert all((each.headers or {})["Retry-After"] for each in refused)
    assert results.count(False) == passwords.MOST
    assert not await passwords.is_right(PASSWORD, None)  # afterwards there is room again
