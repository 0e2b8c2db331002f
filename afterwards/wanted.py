"""A text that is looked for, however it is written: escaped, quoted, in other letter case."""

import re
from collections.abc import Iterable
from urllib.parse import unquote

# What goes on with a word: ada is neither in ada.b@example.com nor in ada@example.com, and
# bob@example.com neither in jim-bob@example.com nor in bob@example.com.au.
BEGINS = re.compile(r"(?<!\w)(?<!\w[.+\-@])")
ENDS = re.compile(r"(?!\w)(?![.+\-@]\w)")
ANYWHERE = re.compile("")
_ESCAPE = re.compile(r'(?:\\u[0-9a-fA-F]{4})+|\\["\\/bfnrt]')
_SHORT = {'\\"': '"', "\\\\": "\\", "\\/": "/"}  # what is left is white space


class Wanted:
    """A text that counts as held where it stands as a word, or words, of its own."""

    def __init__(self, text: str) -> None:
        """Raise ValueError for a text that would be held by anything."""
        folded = text.strip().casefold()
        if not re.search(r"\w", folded):
            raise ValueError("a text to be erased takes letters or digits")
        # Looked for first, and its ends after that: any other order takes the square of a length.
        self._pattern = re.compile(re.escape(folded))
        self._before = BEGINS if re.match(r"\w", folded) else ANYWHERE
        self._after = ENDS if re.search(r"\w\Z", folded) else ANYWHERE
        # Written the same by whatever escapes or quotes, and found by any database.
        self.run = max(re.findall(r"[A-Za-z0-9]*", text), key=len).lower()

    def is_in(self, texts: Iterable[str | None]) -> bool:
        """Tell whether one of the texts holds it."""
        return any(self._is_in(text) for text in texts if text)

    def _is_in(self, text: str) -> bool:
        return any(self._stands_in(form.casefold()) for form in _forms(text))

    def _stands_in(self, folded: str) -> bool:
        return any(
            self._before.match(folded, found.start()) and self._after.match(folded, found.end())
            for found in self._pattern.finditer(folded)
        )


def _forms(text: str) -> set[str]:
    """List what the text may mean: as it is, as JSON, as a part of a URL."""
    forms = {text}
    if "\\" in text:
        forms.add(_ESCAPE.sub(_unescaped, text))
    if "%" in text:
        forms.add(unquote(text))
    return forms


def _unescaped(escape: re.Match[str]) -> str:
    if escape[0].startswith("\\u"):  # two of them may be one character
        units = bytes.fromhex(escape[0].replace("\\u", ""))
        return units.decode("utf-16-be", "replace")
    return _SHORT.get(escape[0], " ")
