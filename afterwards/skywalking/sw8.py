"""A span as text, in the form of the `sw8` header: written for our tasks, read with suspicion.

https://skywalking.apache.org/docs/main/next/en/api/x-process-propagation-headers-v3/
"""

import base64
import functools
import re
from typing import NamedTuple

from afterwards.redaction import encodable


class Parent(NamedTuple):
    """The span that caused something, as `sw8` tells of it."""

    trace_id: str
    segment_id: str
    span_id: int
    service: str
    instance: str
    endpoint: str
    address: str  # the one that the caller called; empty between a request and its task


_SW8 = re.compile(r"[01]-(B)-(B)-([0-9]{1,10})-(B)-(B)-(B)-(B)".replace("B", "[A-Za-z0-9+/=]*"))
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_INT32 = 2**31  # the protocol's span id; a larger one would lose the segment


def parent_of(sw8: str) -> Parent | None:
    """Read what `sw8` or a stored carrier says; None if anything about it is wrong."""
    match = _SW8.fullmatch(sw8) if len(sw8) <= 4096 else None
    if match is None:
        return None
    try:
        trace_id, segment_id = _decoded(match[1]), _decoded(match[2])
        service, instance, endpoint, address = _decoded_place(*match.group(4, 5, 6, 7))
    except ValueError:
        return None
    whole = (
        _ID.fullmatch(trace_id) and _ID.fullmatch(segment_id) and service and instance and endpoint
    )
    if not whole or int(match[3]) >= _INT32:
        return None
    return Parent(trace_id, segment_id, int(match[3]), service, instance, endpoint, address)


def correlation_of(header: str, most: int, longest: int) -> dict[str, str]:
    """Read `sw8-correlation`: `most` elements of `longest` characters; {} if anything is wrong."""
    if not header or len(header) > 4096:
        return {}
    try:
        pairs = [[_decoded(part) for part in pair.split(":")] for pair in header.split(",")]
        found = dict(pairs)
    except ValueError:
        return {}
    fits = len(found) <= most and all(
        key and len(key) <= longest and len(found[key]) <= longest for key in found
    )
    return found if fits else {}


def _decoded(text: str) -> str:
    decoded = base64.b64decode(text, validate=True).decode()
    if len(decoded) > 512 or not decoded.isprintable():
        raise ValueError("too long, or it would forge a log line")
    return decoded


def written(parent: Parent) -> str:
    """Write a span as `parent_of` reads it."""
    ids = f"{_encoded(parent.trace_id)}-{_encoded(parent.segment_id)}-{parent.span_id}"
    return f"1-{ids}-{_place(parent.service, parent.instance, parent.endpoint, parent.address)}"


@functools.lru_cache(maxsize=256)  # a service has few endpoints
def _place(*fields: str) -> str:
    return "-".join(map(_encoded, fields))


@functools.lru_cache(maxsize=256)
def _decoded_place(*fields: str) -> tuple[str, ...]:
    return tuple(map(_decoded, fields))


def _encoded(text: str) -> str:
    return base64.b64encode(encodable(text).encode()).decode()
