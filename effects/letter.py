"""A mail as a record, made harmless, and what can go wrong on its way.

MailError
  MailUnreachable    no answer: try again
  MailRefused        an answer, and it was no: `permanent` says whether the mail itself is at fault
"""

import html
import re
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Final

from effects.one_line import without_links

MAX_EXCERPT: Final = 200  # characters of a server's answer

# No quoted local parts and no address literals: hardly anyone has one, and each may smuggle.
_ADDRESS = re.compile(r'[^\s\x00-\x20\x7f<>()\[\],;:\\"@]+@[^\s\x00-\x20\x7f<>()\[\],;:\\"@]+')


class MailError(Exception):
    """The mail was not accepted; no text of these errors holds a URL, a key or a password."""


class MailUnreachable(MailError):
    """The mail server gave no answer."""


class MailRefused(MailError):
    """The server refused the mail, with its status and some of its words, or the mail is none."""

    def __init__(self, status: int | None, answer: str, *, permanent: bool) -> None:
        super().__init__(answer if status is None else f"{status}: {answer}")
        self.status: Final = status
        self.permanent: Final = permanent


@dataclass(frozen=True)
class Mail:
    """A mail to one recipient; the sender may have a display name: `Name <name@example.com>`.

    Raises MailRefused for an address or a subject that could say more to a server than it shows.
    """

    sender: str
    to: str
    subject: str
    text: str
    html: str

    def __post_init__(self) -> None:
        for address in (self.to, self.sender_address):
            if not _ADDRESS.fullmatch(address) or "=?" in address:
                raise MailRefused(None, "this is no mail address", permanent=True)
        # Python 3.11 decodes an encoded word in a header it writes, and any line break in it.
        if "=?" in self.subject + self.sender or self.subject.splitlines() != [self.subject]:
            raise MailRefused(None, "this is no subject", permanent=True)

    @property
    def sender_name(self) -> str:
        return parseaddr(self.sender)[0]

    @property
    def sender_address(self) -> str:
        return parseaddr(self.sender)[1]


def welcome(username: str, email: str, sender: str) -> Mail:
    """Greet a new user by name."""
    name = _harmless(username)
    return Mail(
        sender=sender,
        to=email,
        subject=f"Welcome, {name}!",
        text=f"Welcome, {name}!\n\nYour account has been created.\n",
        html=f"<p>Welcome, <bdi>{html.escape(name)}</bdi>!</p>\n"
        "<p>Your account has been created.</p>\n",
    )


def _harmless(name: str) -> str:
    """Keep a name on one line, in one direction, encodable, no link, no encoded word (RFC 2047)."""
    return without_links(name).replace("=?", "= ?")


def excerpt(answer: str, *secrets: str) -> str:
    """Shorten a server's answer to one line, without the secrets that it may repeat."""
    for secret in filter(None, secrets):
        answer = answer.replace(secret, "***")
    return " ".join(answer.split())[:MAX_EXCERPT]
