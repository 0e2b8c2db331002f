"""How secret arguments are written: encrypted where there is a key, else in clear."""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from afterwards.errors import SecretsUnreadable

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SHORTEST_KEY = 32  # characters
CLEAR = "{"  # what JSON by parameter begins with, and no token


class Seal:
    """Encrypts with the first of its keys, and reads what was encrypted with any of them.

    A key is any text that cannot be guessed, of 32 characters or more. Raises ValueError for a
    wrong one, or where the package that encrypts is not installed.
    """

    def __init__(self, keys: str | Sequence[str] | None = None) -> None:
        keys = [keys] if isinstance(keys, str) else [*(keys or ())]
        for key in keys:
            if not isinstance(key, str) or len(key) < SHORTEST_KEY:
                raise ValueError(
                    f"secret_key: takes texts of {SHORTEST_KEY} characters or more, such as"
                    " `openssl rand -hex 32` makes; the first encrypts, all of them decrypt"
                )
        if keys and find_spec("cryptography") is None:
            raise ValueError(
                "secret_key: takes the package too: pip install 'afterwards[encryption]'"
            )
        self._fernet = _fernet(keys) if keys else None

    def close(self, text: str) -> str:
        """Return the text as a row is to hold it."""
        return self._fernet.encrypt(text.encode()).decode() if self._fernet else text

    def open(self, held: str) -> str:
        """Return the text that a row holds; raise `SecretsUnreadable`."""
        if held.startswith(CLEAR):
            return held
        if self._fernet is None:
            raise SecretsUnreadable("there is no secret_key here")
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(held).decode()
        except InvalidToken:
            raise SecretsUnreadable("the secret_key here is another") from None


NO_SEAL = Seal()


def _fernet(keys: Sequence[str]) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet  # here, because it is an extra
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def derived(key: str) -> bytes:
        # Of texts of any form, as platforms make them; https://www.rfc-editor.org/rfc/rfc5869
        made = HKDF(SHA256(), 32, salt=None, info=b"afterwards secret arguments")
        return base64.urlsafe_b64encode(made.derive(key.encode()))

    return MultiFernet([Fernet(derived(key)) for key in keys])
