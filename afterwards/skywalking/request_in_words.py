"""A request in the words of a span: its name, its URL, and those of its headers that count."""

from collections.abc import Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]

UNMATCHED = "/{unmatched}"  # the name of every path that has no route, whatever its method
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
URL_LENGTH = 1_000  # characters of it that are sent


def operation(scope: Scope) -> str:
    """Name the span for the route, so that ids in paths make no endpoints."""
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return UNMATCHED
    return f"{scope['method'] if scope['method'] in METHODS else 'OTHER'}:{path}"


def url(scope: Scope) -> str:
    """Give the URL without its query and without credentials."""
    server = scope.get("server") or ("", None)
    host = only(scope["headers"], b"host") or (
        f"{server[0]}:{server[1]}" if server[1] else server[0]
    )
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return f"{scope['scheme']}://{host.rpartition('@')[2]}{path.decode('latin-1')}"[:URL_LENGTH]


def only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Give the header's value if there is exactly one of this name, else ""."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""
