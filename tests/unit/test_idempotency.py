"""Whose an Idempotency-Key is."""

import uuid

import pytest

from afterwards.idempotency import Key, key_of

GUESSABLE, UNGUESSABLE = "order-1", str(uuid.uuid4())


def key(text: str, client: str | None = "192.0.2.1", **headers: str) -> Key:
    given = {"idempotency-key": text, **headers}
    return key_of(
        {
            "type": "http",
            "method": "POST",
            "path": "/action",
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in given.items()
            ],
            "client": client and (client, 4711),
        },
        b"{}",
    )


@pytest.mark.parametrize("text", [GUESSABLE, UNGUESSABLE])
def test_a_clients_key_stays_the_same(text: str) -> None:
    assert key(text) == key(text)
    assert key(text, client=None) == key(text, client=None)
    assert key(text, authorization="Bearer a") == key(text, authorization="Bearer a")


def test_another_address_has_other_keys() -> None:
    assert key(GUESSABLE) != key(GUESSABLE, client="192.0.2.2")
    assert key(GUESSABLE) != key(GUESSABLE, client=None)


def test_an_unguessable_key_may_move() -> None:
    assert key(UNGUESSABLE) == key(UNGUESSABLE, client="192.0.2.2")


@pytest.mark.parametrize("text", [GUESSABLE, UNGUESSABLE])
@pytest.mark.parametrize("name", ["authorization", "cookie", "x_api_key"])
def test_other_credentials_have_other_keys(text: str, name: str) -> None:
    assert key(text, **{name: "ada"}) != key(text, **{name: "bob"})
    assert key(text, **{name: "ada"}) != key(text)
    assert key(text, **{name: "ada"}) == key(text, "192.0.2.2", **{name: "ada"})


def test_no_key_is_what_another_is_kept_under() -> None:
    kept = key(GUESSABLE)
    assert key(kept.text).text != kept.text
    assert GUESSABLE not in kept.text
