"""A stranger's name as one line of text that cannot change what stands around it."""

import re

# Overrides and isolates reach beyond the name and turn the rest of the line round (Unicode TR 9).
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def on_one_line(text: str) -> str:
    """Return the text in one direction, without line breaks, encodable."""
    return " ".join(_DIRECTION.sub("", text).encode("utf-8", "replace").decode().split())
