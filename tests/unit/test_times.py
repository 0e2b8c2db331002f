"""Moments as clients read them."""

from datetime import UTC, datetime

from afterwards.times import rfc3339


def test_moments_have_six_digits_and_z() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
    assert rfc3339(moment) == "2026-01-31T12:00:00.000005Z"
    assert rfc3339(moment.replace(microsecond=0)) == "2026-01-31T12:00:00.000000Z"


def test_microseconds_keep_their_last_digit() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(253_402_300_799_999_999) == "9999-12-31T23:59:59.999999Z"
