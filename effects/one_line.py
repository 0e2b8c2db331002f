"""A stranger's name as one line of text that cannot change what stands around it."""

import re

# Overrides and isolates reach beyond the name and turn the rest of the line round (Unicode TR 9).
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# Where programs see a link that nobody has marked as one: a host name or address, whose full stop
# may be another alphabet's (RFC 3490), a scheme, an e-mail address, a share of Windows.
_LINK = re.compile(
    r"(?<=[.\u2024\u3002\ufe52\uff0e\uff61])(?=[^\s.)])"
    r"|(?<=\w[:\ufe55\uff1a])(?=[^\s()])"
    r"|(?<=\S)(?=[@\ufe6b\uff20])"
    r"|(?<=\\)(?=\\)"
)


def on_one_line(text: str) -> str:
    """Return the text in one direction, without line breaks, encodable."""
    return " ".join(_DIRECTION.sub("", text).encode("utf-8", "replace").decode().split())


def without_links(text: str) -> str:
    """Return the text on one line, with a space wherever a program would see a link.

    Not refused: J.R.R. and node.js are names, and which host names there are changes by the week.
    """
    return _LINK.sub(" ", on_one_line(text))
