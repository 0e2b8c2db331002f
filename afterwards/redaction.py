"""What must not leave the process in a line: credentials, secret paths, and text without end."""

import re

# Characters of a message, and of a traceback: a stranger chooses how long some are.
LINE_LENGTH = 16 * 1024

# From a word's first :// up to its last @: a password may hold an @ or a slash. One try for each
# word, and no second one within it (which `(?>` forbids), or a word of many :// would take the
# square of its length.
_CREDENTIALS = re.compile(r"(?<![^\s\"'<>])(?>([^\s\"'<>]*?://))[^\s\"'<>]*@")
# The name before an @, or its %40 in a URL; a host without a dot, as a worker's, is none of a mail.
# `*+` looks at each character once.
_ADDRESS = re.compile(
    r"(?<![\w.+%-])([\w.+-]|%(?!40))(?:[\w.+-]|%(?!40))*+(@|%40)(?=(?:[\w-]+\.)+[^\W\d_]{2})"
)
_PATH = re.compile(r"(https?://[^\s\"'<>/?#]+)[^\s\"'<>]*", re.IGNORECASE)
# A client's text must not drive a terminal, forge a line, turn one round or hide in it: C0 but for
# the line feed, DEL, C1, and Unicode's own: separators, overrides and isolates (TR 9), what has no
# width; and what cannot be encoded.
CONTROLS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def without_credentials(text: str) -> str:
    """Take user names and passwords out of all URLs."""
    return _CREDENTIALS.sub(r"\1", text) if "://" in text and "@" in text else text


def without_addresses(text: str) -> str:
    """Shorten mail addresses, such as to a***@example.com: who knows them still knows which."""
    return _ADDRESS.sub(r"\1***\2", text) if "@" in text or "%40" in text else text


def without_secrets(text: str) -> str:
    """Take out the credentials of all URLs, a web URL's path, and the names of mail addresses.

    A webhook's path is its secret.
    """
    if "://" in text:
        text = _PATH.sub(r"\1/", without_credentials(text))
    return without_addresses(text)


def encodable(text: str) -> str:
    """Replace lone surrogates: one would cost the whole segment when it is sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def storable(text: str) -> str:
    """Spell out what a database may refuse, such as a NUL: one would cost others' rows, too."""
    return text if text.isprintable() else escaped(encodable(text))


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


def escaped(text: str) -> str:
    """Spell out what would drive a terminal or hide in a line; line feeds stay."""
    if text.isprintable():  # as most is; a quarter of the search's cost
        return text
    return CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def in_a_line(text: str) -> str:
    """Make one line of an error's text that may be shown to a person."""
    return escaped(" ".join(without_credentials(shortened(text)).split()))
