import pytest

from observing.redaction import without_credentials, without_secrets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("amqp://user:password@broker:5672/vhost", "amqp://broker:5672/vhost"),
        ("redis://:pa@ss/word@cache:6379/0", "redis://cache:6379/0"),
        ("for url 'https://discord.com/api/webhooks/1/secret?wait=1' (404)", "for url 'https://discord.com/' (404)"),
        ("http://a:b@host:8080?key=secret then http://other/path", "http://host:8080/ then http://other/"),
        ("HTTPS://u:p@host/secret", "HTTPS://host/"),
    ],
)
def test_urls_lose_their_secrets(text: str, told: str) -> None:
    assert without_secrets(text) == told


@pytest.mark.parametrize("text", ["", "no url", "mail to a@b.example", "sqlite:///data/service.db", "a:b@c"])
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_credentials_alone_can_be_taken_out() -> None:
    assert without_credentials("GET https://me:pass@host/path") == "GET https://host/path"
