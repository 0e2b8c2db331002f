"""A text is found however it is written, and never as a part of another."""

import json
import time
from urllib.parse import quote

import pytest

from afterwards.wanted import Wanted

ADA = "Ada.Lovelace@example.com"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"email":"{ADA}"}}',
        f"550 <{ADA}> no such user",
        f"mail to {ADA}.",
        f"https://example.com/?to={quote(ADA, safe='')}&x=1",
        ADA.lower(),
        ADA.upper(),
        f"MailRefused: '{ADA}'",
        json.dumps({"text": f"one line\n{ADA}\tanother"}),
    ],
)
def test_a_text_is_found(text: str) -> None:
    assert Wanted(ADA).is_in([None, "nothing", text])
    assert Wanted(f" {ADA.lower()} ").is_in([text])


@pytest.mark.parametrize(
    "text",
    [
        "of@ada.lovelace.example.com",
        f"x{ADA}",
        f"jim-{ADA}",
        f"jim.{ADA}",
        f"jim+{ADA}",
        f"{ADA}.au",
        f"{ADA}s",
        f"{ADA}-shop.net",
        "ada_lovelace@example.com",
        "ada%lovelace@example.com",
        "",
    ],
)
def test_another_text_is_none(text: str) -> None:
    assert not Wanted(ADA).is_in([text])


def test_a_name_is_no_address() -> None:
    assert Wanted("ada").is_in(["Welcome, Ada!"])
    assert not Wanted("ada").is_in(["ada@example.com", "Canada", "ada-1815", "x@ada.org"])


@pytest.mark.parametrize(
    "name", ["Zoë", "ЖАННА", "李", "Þór 😀", 'a"b\\c', "100% O'Brien", "Straße"]
)
def test_any_writing_is_found(name: str) -> None:
    wanted = Wanted(name)
    for text in (name, json.dumps(name), json.dumps(name, ensure_ascii=False), quote(name)):
        assert wanted.is_in([text]), text
        assert wanted.run in text.lower()
    assert wanted.is_in([json.dumps({"name": name.upper()})])


@pytest.mark.parametrize("text", ["", "  ", "%", "@", ".*"])
def test_nothing_is_no_text(text: str) -> None:
    with pytest.raises(ValueError, match="takes letters or digits"):
        Wanted(text)


def test_a_long_text_takes_no_square() -> None:
    began = time.perf_counter()
    assert not Wanted("a" * 1000 + "b").is_in(["a" * 1_000_000, "\\u0061" * 100_000])
    assert time.perf_counter() - began < 20
