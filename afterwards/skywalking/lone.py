"""A segment of one span as bytes: those that the agent's protocol classes give, without them.

The fields' numbers are the protocol's (Tracing.proto); a test compares the bytes with theirs.
"""

import functools

from afterwards.redaction import storable
from afterwards.skywalking.root_span import Reference, RootSpan

# A span's parent within its segment, of which there is none (-1), and its error flag, if it is set.
NO_PARENT, IS_ERROR = b"\x10" + b"\xff" * 9 + b"\x01", b"\x58\x01"
CROSS_THREAD = b"\x08\x01"  # of a reference; the other kind is 0, which is left out

# What many spans have in common is written once, as long as it is used.
_kept = functools.lru_cache(maxsize=1024)


def segment_of(span: RootSpan) -> bytes:
    """Write the segment of a span without logs, as one of a `SegmentCollection`."""
    config = span.agent.config
    pieces = (
        NO_PARENT,
        _number(3, span.start_time),
        _number(4, span.end_time),
        *map(_reference, span.refs),
        _kept_text(6, span.op),
        _kept_text(7, span.peer),
        span.shape.written,
        IS_ERROR if span.error_occurred else b"",
        *map(_tag, span.tags, span.tags.values()),
    )
    ids = _text(1, span.trace_id) + _text(2, span.segment_id)
    here = _place(4, config.agent_name, config.agent_instance_name)
    return _message(1, ids + _message(3, b"".join(pieces)) + here)


def _reference(ref: Reference) -> bytes:
    kind = b"" if ref.ref_type == "CrossProcess" else CROSS_THREAD
    ids = _text(2, ref.trace_id) + _text(3, ref.segment_id) + _number(4, ref.span_id)
    place = _place(5, ref.service, ref.service_instance, ref.endpoint, ref.client_address)
    return _message(5, kind + ids + place)


@_kept
def _tag(key: str, value: str) -> bytes:
    return _message(12, _text(1, key) + _text(2, storable(value)))


@_kept
def _place(first: int, *names: str) -> bytes:
    return b"".join(_text(number, name) for number, name in enumerate(names, first))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode()) if text else b""


_kept_text = _kept(_text)


def _message(field: int, written: bytes) -> bytes:
    return _head(field, len(written)) + written


@_kept
def _head(field: int, length: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(length)


@_kept
def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # a negative one takes all ten bytes
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes((*written, value))
