"""What must not leave the process in a line of text: credentials, secret paths, and what cannot be encoded."""

import re

# Greedy up to the last @ of a word: a password may hold an @ or a slash.
_CREDENTIALS = re.compile(r"://[^\s\"'<>]*@")
_PATH = re.compile(r"(https?://[^\s\"'<>/?#]+)[^\s\"'<>]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Take user names and passwords out of all URLs."""
    return _CREDENTIALS.sub("://", text) if "://" in text else text


def without_secrets(text: str) -> str:
    """Take the credentials out of all URLs, and of those of the web the path too: a webhook's is its secret."""
    return _PATH.sub(r"\1/", without_credentials(text)) if "://" in text else text


def encodable(text: str) -> str:
    """Replace lone surrogates: one would cost the whole segment when it is sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
