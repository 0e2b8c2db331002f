"""Passwords, kept as argon2id's hashes: made and checked in threads, few at a time."""

import unicodedata
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from afterwards.problems import Problem

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MIN_LENGTH, MAX_LENGTH = 8, 128  # characters

# OWASP's first choice, for machines with little memory: 19 MiB and some 20 ms for each.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_slots = anyio.CapacityLimiter(2)
MOST = 50  # that wait, for a second or so, or are under way; it is a flood that has more
_room = anyio.CapacityLimiter(MOST)

# A password's that nobody knows, checked for whom there is not: it takes as long.
NOBODYS = (
    "$argon2id$v=19$m=19456,t=2,p=1$7vHPtcvvvLsYIVKrn"
    "8DO7A$mfM1vznG1Of15aZtM80wUIJs4aApZErVIOmupP2TfCI"
)


async def hashed(password: str) -> str:
    """Return what to keep of a password; raise a `Problem`, 503, where too many wait."""
    return await _in_thread(_hash, password)


async def is_right(password: str, kept: str | None) -> bool:
    """Tell whether what is kept was made of this password, in the time that it takes without any.

    Raises a `Problem`, 503, where too many wait.
    """
    if kept is None or len(password) > MAX_LENGTH:
        password, kept = "", NOBODYS
    return await _in_thread(_verify, password, kept)


def is_dated(kept: str) -> bool:
    """Tell whether this was made as hashes are made no longer."""
    return _hasher.check_needs_rehash(kept)


def _hash(password: str) -> str:
    return _hasher.hash(_normal(password))


def _verify(password: str, kept: str) -> bool:
    try:
        return _hasher.verify(kept, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


def _normal(password: str) -> str:
    # As keyboards differ in how they spell one character (RFC 8265, OpaqueString).
    return unicodedata.normalize("NFC", password)


async def _in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    try:
        _room.acquire_nowait()
    except anyio.WouldBlock:
        detail = "Too many passwords wait to be checked. Send the request again later."
        raise Problem(503, detail, headers={"Retry-After": "1"}) from None
    try:
        return await anyio.to_thread.run_sync(function, *args, limiter=_slots)
    finally:
        _room.release()
