"""Whose requests come in, told by their headers alone, and what a page may load."""

import pytest

from tests.growth import is_linear
from web.headers import policy
from web.hosts import Hosts
from web.origins import is_foreign

Headers = list[tuple[bytes, bytes]]


def scope(*hosts: bytes, path: str = "/") -> dict[str, object]:
    return {"path": path, "headers": [(b"accept", b"*/*"), *((b"host", host) for host in hosts)]}


@pytest.mark.parametrize(
    "host",
    [
        *(b"example.com", b"EXAMPLE.com", b"example.com:8000", b"example.com.", b"example.com.:1"),
        *(b"a.below.com", b"a.b.below.com:443", b"[::1]", b"[::1]:8000", b"127.0.0.1:8000"),
    ],
)
def test_an_allowed_name_comes_in(host: bytes) -> None:
    assert Hosts(["Example.com", "*.below.com", "[::1]", "127.0.0.1"]).allow(scope(host))


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b"evil.com", b"example.com.evil.com", b"evilexample.com", b"a.example.com", b":80"),
        *(b"below.com", b"notbelow.com", b"example.com:", b"example.com:x", b"example.com@evil"),
        *(b"[::2]", b"[::1", b"\xff", b"example.com/", b" example.com"),
    ],
)
def test_any_other_name_does_not(host: bytes) -> None:
    assert not Hosts(["example.com", "*.below.com", "[::1]"]).allow(scope(host))


def test_two_names_or_none_are_refused() -> None:
    hosts = Hosts(["example.com"])
    assert not hosts.allow(scope())
    assert not hosts.allow(scope(b"example.com", b"example.com"))


def test_health_is_asked_by_any_name() -> None:
    hosts = Hosts(["example.com"])
    assert hosts.allow(scope(b"10.0.0.1:8000", path="/health"))
    assert not hosts.allow(scope(b"10.0.0.1:8000", path="/healthy"))


@pytest.mark.parametrize("unit", ["a.", ".", ":", "1"])
def test_endless_names_take_linear_time(unit: str) -> None:
    def ask(text: str) -> None:
        Hosts(["example.com"]).allow(scope(text.encode()))

    assert is_linear(ask, unit, size=30_000)


HOST = (b"host", b"example.com:8000")


def request(origin: bytes | None, site: bytes | None = None) -> Headers:
    said = [(b"origin", origin), (b"sec-fetch-site", site)]
    return [HOST, *((name, value) for name, value in said if value is not None)]


@pytest.mark.parametrize(
    "headers",
    [
        request(None),  # curl
        request(b"https://example.com:8000"),
        request(b"http://example.com:8000"),
        request(b"https://else.where", b"same-origin"),  # behind a proxy that changes Host
        request(b"null", b"none"),  # a person, by the address bar
        request(b"https://friend.com"),
        request(b"https://friend.com", b"cross-site"),
    ],
)
def test_our_own_and_allowed_pages_may(headers: Headers) -> None:
    assert not is_foreign(headers, {b"https://friend.com"})


@pytest.mark.parametrize(
    "headers",
    [
        request(b"https://evil.com"),
        request(b"https://example.com"),  # another port is another origin
        request(b"null"),  # a sandbox, a file, a page without a referrer
        request(b""),
        request(b"https://example.com:8000", b"cross-site"),
        request(b"https://a.example.com", b"same-site"),
        request(b"http://friend.com"),
        request(b"https://friend.com.evil.com", b"cross-site"),
        [(b"origin", b"https://evil.com")],
    ],
)
def test_other_pages_may_not(headers: Headers) -> None:
    assert is_foreign(headers, {b"https://friend.com"})
    assert not is_foreign(headers, {b"*"})


def test_a_page_loads_what_its_policy_names() -> None:
    assert policy(script="'self'", img="'self' data:", forms="'self'") == (
        "default-src 'none'; script-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert policy() == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
