"""What must not leave the process in a line: credentials, secret paths, and text without end."""

import re

LINE_LENGTH = (
    16 * 1024
)  # characters of a message, and of a traceback: a stranger chooses how long some are

# From a word's first :// up to its last @: a password may hold an @ or a slash. One try for each
# word, and no second one within it (which `(?>` forbids), or a word of many :// would take the
# square of its length.
_CREDENTIALS = re.compile(r"(?<![^\s\"'<>])(?>([^\s\"'<>]*?://))[^\s\"'<>]*@")
_PATH = re.compile(r"(https?://[^\s\"'<>/?#]+)[^\s\"'<>]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Take user names and passwords out of all URLs."""
    return _CREDENTIALS.sub(r"\1", text) if "://" in text and "@" in text else text


def without_secrets(text: str) -> str:
    """Take the credentials out of all URLs, and a web URL's path: a webhook's is its secret."""
    return _PATH.sub(r"\1/", without_credentials(text)) if "://" in text else text


def encodable(text: str) -> str:
    """Replace lone surrogates: one would cost the whole segment when it is sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def shortened(text: str, most: int = LINE_LENGTH) -> str:
    """Keep both ends of a text, `most` characters, and say how many are left out between.

    A URL that the cut goes through loses what could be the half of a password.
    """
    if len(text) <= most:
        return text
    head, tail = text[: most // 2], text[-(most // 2) :]
    url = head.rpartition(" ")[2].partition("://")[2]
    word, space, rest = tail.partition(" ")
    tail = word.rpartition("@")[2] + space + rest
    head = head.removesuffix(url)
    return f"{head} [... {len(text) - len(head) - len(tail)} characters ...] {tail}"
