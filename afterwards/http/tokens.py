"""The operators' tokens: several for a rotation, some of which may only read."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

TOKEN = re.compile("[!-~][ -~]{14,}[!-~]")

Given = str | Sequence[str] | None


class Role(StrEnum):
    """What an operator may do."""

    OPERATOR = "operator"  # all
    READER = "reader"  # look at lists and arguments


class Token(NamedTuple):
    """A token, and the few letters of its hash that stand for it in logs and rows."""

    text: str
    role: Role
    fingerprint: str


def tokens(token: Given, read_token: Given) -> list[Token]:
    """List the tokens; raise ValueError for one easily guessed, or that no header can carry."""
    texts = {Role.OPERATOR: _listed(token), Role.READER: _listed(read_token)}
    for name, role in (("token", Role.OPERATOR), ("read_token", Role.READER)):
        if not all(map(TOKEN.fullmatch, texts[role])):
            wanted = "a secret of 16 characters or more, all printable ASCII"
            raise ValueError(f"{name}: takes {wanted}")
    if {*texts[Role.OPERATOR]} & {*texts[Role.READER]}:
        raise ValueError("read_token: takes another secret than token")
    return [Token(text, role, fingerprint(text)) for role in Role for text in texts[role]]


def fingerprint(text: str) -> str:
    """Return what stands for a token where it must not be seen itself."""
    return hashlib.sha256(b"afterwards operator " + text.encode()).hexdigest()[:8]


def matching(all: Iterable[Token], given: str) -> Token | None:
    """Return the token that was given, in a time that tells nothing of the others."""
    # Bytes, as they were sent: compare_digest refuses text beyond ASCII, which a stranger may send.
    sent = given.encode()
    found = [token for token in all if hmac.compare_digest(sent, token.text.encode())]
    return found[0] if found else None


def _listed(given: Given) -> list[str]:
    return [given] if isinstance(given, str) else [*(given or ())]
