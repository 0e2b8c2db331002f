"""Secret arguments are apart in a row, and in no text of an error."""

import json
import traceback
from typing import Any

import pytest
from pydantic import BaseModel

from afterwards.retries import GiveUp, RetryAfter
from afterwards.secrecy import apart, together, without

ADA = "Ada.Ärger@example.com"


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_arguments_are_taken_apart() -> None:
    whole = json.dumps({"email": ADA, "text": "***", "many": [1e400, None]}, ensure_ascii=False)
    shown, secrets = apart(whole, {"email", "many"})
    assert json.loads(shown) == {"email": "***", "text": "***", "many": "***"}
    assert together(shown, secrets) == whole.replace(": ", ":").replace(", ", ",")


def test_others_stay_where_they_are() -> None:
    assert apart('{"a":1}', {"b"}) == ('{"a":1}', "{}")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"no such user: {ADA}"),
        ValueError(f"no such user: {ADA.upper()}"),
        KeyError(ADA),
        OSError(2, "no such file", ADA),
        ValueError(f"https://example.com/?to={'Ada.%C3%84rger%40example.com'}"),
        ValueError(json.dumps({"to": ADA})),
        UnicodeEncodeError("ascii", ADA, 4, 5, "ordinal"),
        ExceptionGroup(f"for {ADA}", [ValueError(ADA), TypeError("else")]),
    ],
)
def test_no_error_tells_a_secret(error: Exception) -> None:
    inner = raised(ZeroDivisionError(f"{ADA} again"))
    inner.add_note(f"it was {ADA}")
    found = without(raised(error, inner), {"email": ADA})
    text = told(found)
    assert "example.com" not in text.replace("https://example.com", "")
    assert "***" in text
    assert type(found).__name__ == type(error).__name__
    assert "in raised" in text  # where it was
    assert "ZeroDivisionError: *** again" in text


def test_it_stays_an_error_of_its_class() -> None:
    found = without(raised(RetryAfter(7.5, f"for {ADA}")), {"email": ADA})
    assert isinstance(found, RetryAfter)
    assert found.seconds == 7.5
    assert isinstance(without(GiveUp(ADA), {"email": ADA}), GiveUp)


def test_an_error_without_secrets_is_itself() -> None:
    error = raised(ValueError("something else"), KeyError("ab"))
    for secrets in ({"email": ADA}, {}, {"flag": True, "short": "so", "none": None}):
        assert without(error, secrets) is error


class Address(BaseModel):
    street: str
    numbers: list[int]


@pytest.mark.parametrize("text", ["Main Street", "4711"])
def test_a_secrets_parts_are_secret(text: str) -> None:
    value: Any = {"home": [Address(street="Main Street", numbers=[4711])]}
    assert str(without(ValueError(f"not {text}!"), {"where": value})) == "not ***!"


class Odd(Exception):
    def __new__(cls, *args: object) -> "Odd":
        if not args:
            raise TypeError
        return super().__new__(cls, *args)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_odd_errors_are_hidden_too() -> None:
    found = without(Odd(ADA), {"email": ADA})
    assert (str(found), type(found).__name__) == ("***", "Odd")
    mute = Mute()
    assert without(mute, {"email": ADA}) is mute
    assert "***" in told(without(raised(mute, KeyError(ADA)), {"email": ADA}))
