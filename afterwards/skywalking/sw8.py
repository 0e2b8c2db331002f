"""A span as text, in the form of the `sw8` header: written for our tasks, read with suspicion.

https://skywalking.apache.org/docs/main/next/en/api/x-process-propagation-headers-v3/
"""

import functools
import re
from binascii import a2b_base64, b2a_base64
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


_NUMBER = re.compile(r"[0-9]{1,10}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_INT32 = 2**31  # the protocol's span id; a larger one would lose the segment


def parent_of(sw8: str) -> Parent | None:
    """Read what `sw8` or a stored carrier says; None if anything about it is wrong."""
    parts = sw8.split("-") if len(sw8) <= 4096 else []
    if len(parts) != 8 or parts[0] not in ("0", "1") or not _NUMBER.fullmatch(parts[3]):
        return None
    try:
        trace_id, segment_id = _decoded(parts[1]), _decoded(parts[2])
        service, instance, endpoint, address = _decoded_place(*parts[4:])
    except ValueError:
        return None
    span_id = int(parts[3])
    is_whole = _ID.fullmatch(trace_id) and _ID.fullmatch(segment_id) and span_id < _INT32
    if not (is_whole and service and instance and endpoint):
        return None
    return Parent(trace_id, segment_id, span_id, service, instance, endpoint, address)


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
    decoded = a2b_base64(text, strict_mode=True).decode()
    if len(decoded) > 512 or not decoded.isprintable():
        raise ValueError("too long, or it would forge a log line")
    return decoded


def written(parent: Parent) -> str:
    """Write a span as `parent_of` reads it."""
    trace_id, segment_id, span_id, *place = parent
    trace = _encoded(trace_id)
    segment = trace if segment_id == trace_id else _encoded(segment_id)  # a trace's first
    return f"1-{trace}-{segment}-{span_id}-{_place(*place)}"


@functools.lru_cache(maxsize=256)  # a service has few endpoints
def _place(*fields: str) -> str:
    return "-".join(map(_encoded, fields))


@functools.lru_cache(maxsize=256)
def _decoded_place(*fields: str) -> tuple[str, ...]:
    return tuple(map(_decoded, fields))


def _encoded(text: str) -> str:
    return b2a_base64(encodable(text).encode(), newline=False).decode()
