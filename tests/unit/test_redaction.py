import sys

import pytest

from afterwards.redaction import (
    CONTROLS,
    escaped,
    shortened,
    without_addresses,
    without_credentials,
    without_secrets,
)
from tests.growth import is_linear


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("amqp://user:password@broker:5672/vhost", "amqp://broker:5672/vhost"),
        ("redis://:pa@ss/word@cache:6379/0", "redis://cache:6379/0"),
        (
            "for url 'https://discord.com/api/webhooks/1/secret?wait=1' (404)",
            "for url 'https://discord.com/' (404)",
        ),
        (
            "http://a:b@host:8080?key=secret then http://other/path",
            "http://host:8080/ then http://other/",
        ),
        ("HTTPS://u:p@host/secret", "HTTPS://host/"),
    ],
)
def test_urls_lose_their_secrets(text: str, told: str) -> None:
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "text", ["", "no url", "celery@worker-1 is ready", "sqlite:///data/service.db", "a:b@c"]
)
def test_text_without_secrets_stays_unchanged(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mail sent to ada@example.com", "mail sent to a***@example.com"),
        ("a@b.example,<bob.smith+x@sub.example.co.uk>", "a***@b.example,<b***@sub.example.co.uk>"),
        ("zo\xeb@ex\xe4mple.de: \u674e@example.cn", "z***@ex\xe4mple.de: \u674e***@example.cn"),
        ('"GET /users/ada%40example.com HTTP/1.1"', '"GET /users/a***%40example.com HTTP/1.1"'),
        ("to=%3Cada%40example.com%3E", "to=%***%40example.com%3E"),
        ("?to=ada%2Bnews%40example.com", "?to=a***%40example.com"),
        ("{'email': 'Ada@Example.com'}", "{'email': 'A***@Example.com'}"),
    ],
)
def test_mail_addresses_are_shortened(text: str, told: str) -> None:
    assert without_addresses(text) == without_secrets(text) == told


@pytest.mark.parametrize(
    "text",
    ["package@1.2.3", "@decorator.name", "celery@host", "5 @ 3.50", "a @b.example", "@", "%40"],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert without_addresses(text) == text


@pytest.mark.parametrize(
    "unit", ["a", "a.", "@", "a@", "a@b.", "%4", "%40", "a@b-", ".", "\xe4@a.a"]
)
@pytest.mark.parametrize("text", ["{}", "x@{}1", "{}@", "{}@example.com"])
def test_shortening_addresses_takes_linear_time(text: str, unit: str) -> None:
    assert is_linear(lambda long: without_addresses(text.format(long)), unit)


def test_credentials_alone_can_be_taken_out() -> None:
    assert without_credentials("GET https://me:pass@host/path") == "GET https://host/path"


def test_each_url_loses_its_own_credentials() -> None:
    told = without_credentials("from 'http://a:b@c' or <ftp://d@e@f> to http://g/h, i@j")
    assert told == "from 'http://c' or <ftp://f> to http://g/h, i@j"


@pytest.mark.parametrize(
    "unit", ["://", "http://", "http://a", ":// ", "://@ ", "@", "x", "a b://c@d "]
)
@pytest.mark.parametrize("text", ["{}", "{}@", "@://{}", "http://a:b@{}"])
def test_redaction_takes_linear_time(text: str, unit: str) -> None:
    assert is_linear(lambda long: without_secrets(text.format(long)), unit)


def test_a_short_text_is_not_shortened() -> None:
    assert shortened("a" * 100, 100) == "a" * 100


def test_shortening_keeps_ends_and_counts_characters() -> None:
    assert (
        shortened("a" * 100 + "b" * 100, 60) == "a" * 30 + " [... 140 characters ...] " + "b" * 30
    )


@pytest.mark.parametrize("place", range(60))
def test_a_cut_shows_no_half_password(place: int) -> None:
    url = "http://user:password@host "
    for text in (" " * place + url + " " * 200, " " * 200 + url + " " * place):
        told = without_credentials(shortened(text, 80))
        assert not {"user", "pass", "word"} & {told[at : at + 4] for at in range(len(told))}


def test_no_control_character_passes_as_printable() -> None:
    controls = CONTROLS.findall("".join(map(chr, range(sys.maxunicode + 1))))
    assert len(controls) > 2000
    assert [control for control in controls if escaped(control) == control] == []
