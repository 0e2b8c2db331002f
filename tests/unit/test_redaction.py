import sys

import pytest

from afterwards.redaction import CONTROLS, escaped, shortened, without_credentials, without_secrets
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
    "text", ["", "no url", "mail to a@b.example", "sqlite:///data/service.db", "a:b@c"]
)
def test_text_without_secrets_stays_unchanged(text: str) -> None:
    assert without_secrets(text) == text


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
