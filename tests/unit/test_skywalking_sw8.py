"""What a client says of its own trace is believed only when all of it is right."""

import base64

import pytest

from afterwards.skywalking.sw8 import Parent, correlation_of, parent_of, written

GOOD = Parent("trace.1", "segment-1_", 3, "caller", "caller-1", "GET:/über", "10.0.0.1:80")


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def sw8(first: str = "1", span: str | None = None, **changed: str | bytes) -> str:
    fields = {**GOOD._asdict(), **changed}
    parts = [str(value) if isinstance(value, int) else encoded(value) for value in fields.values()]
    parts[2] = span if span is not None else parts[2]
    return "-".join([first, *parts])


@pytest.mark.parametrize("first", ["0", "1"])
def test_a_good_sw8_is_read(first: str) -> None:
    assert parent_of(sw8(first)) == GOOD


@pytest.mark.parametrize(
    "value",
    [
        sw8(span="0"),
        sw8(span=str(2**31 - 1)),
        sw8(trace_id="a" * 128),
        sw8(endpoint="/" + "a" * 511),
        sw8(address=""),
    ],
)
def test_largest_and_smallest_sw8_are_read(value: str) -> None:
    assert parent_of(value) is not None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "garbage",
        "1-------",
        "-" * 5000,
        sw8() + "-",
        sw8() + "\n",
        " " + sw8(),
        sw8("2"),
        sw8().replace("=", "", 1),
        sw8().replace("-", "-!", 1),
        sw8().replace("-", "-\xff", 1),
        sw8(trace_id=b"\xff\xfe"),
        sw8(trace_id=""),
        sw8(trace_id="a" * 129),
        sw8(trace_id="a b"),
        sw8(trace_id="a\nb"),
        sw8(trace_id="a\0b"),
        sw8(trace_id="ü"),
        sw8(segment_id=""),
        sw8(segment_id="a\r\nb"),
        sw8(span=""),
        sw8(span="\u00b2"),
        sw8(span="\u0663"),
        sw8(span="+1"),
        sw8(span="1_0"),
        sw8(span=str(2**31)),
        sw8(span="9" * 4000),
        sw8(service=""),
        sw8(service="a\x1b[2J"),
        sw8(instance=""),
        sw8(instance="\u2028"),
        sw8(endpoint=""),
        sw8(endpoint="/" + "a" * 512),
        sw8(address="a\tb"),
    ],
)
def test_a_bad_sw8_counts_as_none(value: str) -> None:
    assert parent_of(value) is None


def test_a_good_correlation_is_read() -> None:
    header = f"{encoded('a')}:{encoded('1')},{encoded('b')}:{encoded('zwei ü')}"
    assert correlation_of(header, most=2, longest=6) == {"a": "1", "b": "zwei ü"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        ":",
        "::",
        "a",
        "\xff:\xff",
        f"{encoded('a')}:!",
        f"{encoded('a')}:/w==",
        f":{encoded('1')}",
        f"{encoded('a')}:{encoded('more than six')}",
        f"{encoded('a')}:{encoded('a' + chr(10))}",
        ",".join(f"{encoded(str(number))}:{encoded('1')}" for number in range(3)),
        "a" * 5000,
    ],
)
def test_a_bad_correlation_counts_as_none(header: str) -> None:
    assert correlation_of(header, most=2, longest=6) == {}


def test_what_is_written_is_read_again() -> None:
    assert parent_of(written(GOOD)) == GOOD


def test_a_lone_surrogate_can_be_written() -> None:
    assert parent_of(written(GOOD._replace(endpoint="GET:/\ud800"))) == GOOD._replace(
        endpoint="GET:/?"
    )
