"""Who the client is, by what proxies say: they are believed as far as they are trusted."""

from typing import Any

import pytest
import uvicorn
import uvicorn.config
from starlette.types import Receive, Scope, Send

from settings import PROXIES, Settings, read
from web import proxies
from web.proxies import NETWORKS, TrueClient, Trusted, forwarded_client, hop_address

pytestmark = pytest.mark.anyio

TRUSTED = Trusted(["private", "2001:db8:1::/48"])
PROXY, STRANGER = "10.0.0.1", "203.0.113.7"


async def asked(
    *headers: tuple[str, str],
    peer: str | None = PROXY,
    kind: str = "http",
    trusted: Trusted = TRUSTED,
) -> Scope:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scheme = {"http": "http", "websocket": "ws"}[kind]
    scope: Scope = {"type": kind, "scheme": scheme, "headers": fields}
    scope["client"] = (peer, 5000) if peer else None
    await TrueClient(app, trusted)(scope, None, None)  # type: ignore[arg-type]  # not asked for
    return seen[0]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the left one is the client's own word
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.9.9.9", "203.0.113.7"),  # a second proxy that is trusted
        ("203.0.113.7, 2001:db8:1::5", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all of them are ours
        ("\t203.0.113.7 ,, ", "203.0.113.7"),
        ("unknown, 203.0.113.7", "203.0.113.7"),
        ("garbage, 10.0.0.2", "10.0.0.2"),  # no farther than what is an address
    ],
)
async def test_a_trusted_proxy_is_believed(forwarded: str, client: str) -> None:
    assert (await asked(("x-forwarded-for", forwarded)))["client"][0] == client


@pytest.mark.parametrize("peer", [STRANGER, "2001:db8:2::1", "not an address", None])
async def test_nobody_else_is_believed(peer: str | None) -> None:
    said = ("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")
    scope = await asked(*said, peer=peer)
    assert scope["client"] == ((peer, 5000) if peer else None)
    assert scope["scheme"] == "http"


@pytest.mark.parametrize(
    "forwarded",
    [
        *(
            "",
            " , ,",
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "0x7f.1",
            "2130706433",
        ),
        *(
            "1.2.3.4:99999999",
            "1.2.3.4:port",
            "[::1",
            "::1]",
            "[1.2.3.4",
            "fe80::1%\x1b[31m",
            "a" * 65_000,
        ),
        *(
            '"203.0.113.7"',
            "for=203.0.113.7",
            "localhost",
            "127.1",
            "\xb2.1.1.1",
            "203.0.113.7\x00",
        ),
    ],
)
async def test_garbage_leaves_the_proxy(forwarded: str) -> None:
    assert (await asked(("x-forwarded-for", forwarded)))["client"] == (PROXY, 5000)


async def test_headers_that_come_twice_are_one() -> None:
    mine, proxys = ("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", STRANGER)
    assert (await asked(mine, proxys))["client"] == (STRANGER, 0)


async def test_forwarded_is_not_read() -> None:
    assert (await asked(("forwarded", "for=203.0.113.7;proto=https")))["client"][0] == PROXY


def test_no_chain_is_followed_for_ever() -> None:
    parsed: list[str] = []

    class Counting(Trusted):
        def __contains__(self, host: str | None) -> bool:
            parsed.append(str(host))
            return super().__contains__(host)

    forwarded_client(", ".join(["10.0.0.1"] * 7000), Counting(["private"]))
    assert 0 < len(parsed) <= proxies.MAX_HOPS


@pytest.mark.parametrize(
    ("said", "http", "websocket"),
    [
        ("https", "https", "wss"),
        ("HTTP", "http", "ws"),
        ("gopher", "http", "ws"),
        ("", "http", "ws"),
    ],
)
async def test_the_scheme_is_the_proxys(said: str, http: str, websocket: str) -> None:
    header = ("x-forwarded-proto", said)
    assert (await asked(header))["scheme"] == http
    assert (await asked(header, kind="websocket"))["scheme"] == websocket


async def test_the_nearest_proxys_scheme_counts() -> None:
    for said, scheme in [("http, https", "https"), ("https, http", "http")]:
        twice = ("x-forwarded-proto", "gopher"), ("x-forwarded-proto", said)
        assert (await asked(*twice))["scheme"] == scheme


async def test_a_socket_is_trusted_by_name() -> None:
    header = ("x-forwarded-for", STRANGER)
    assert (await asked(header, peer=None, trusted=Trusted(["unix"])))["client"][0] == STRANGER
    assert (await asked(header, peer=None))["client"] is None


async def test_none_trusts_nobody() -> None:
    header = ("x-forwarded-for", STRANGER)
    scope = await asked(header, peer="127.0.0.1", trusted=Trusted(["none"]))
    assert scope["client"][0] == "127.0.0.1"


async def test_renders_two_proxies_are_skipped() -> None:
    """The client, Cloudflare's edge, Render's own: as people who run there report it."""
    header = ("x-forwarded-for", "198.51.100.1, 203.0.113.7, 104.22.17.40")
    trusted = Trusted(["private", "cloudflare"])
    assert (await asked(header, peer="10.21.157.68", trusted=trusted))["client"][0] == STRANGER
    assert (await asked(header, peer="10.21.157.68"))["client"][0] == "104.22.17.40"


def test_an_address_brings_its_port() -> None:
    assert hop_address("203.0.113.7:80") == (STRANGER, 80)
    assert hop_address("[::1]:443") == ("::1", 443)
    assert hop_address("::1:443") == ("::1:443", 0)  # which is an address of its own


@pytest.mark.parametrize(
    ("variables", "trusts"),
    [
        ({}, None),
        ({"TRUSTED_PROXIES": "203.0.113.0/24"}, [STRANGER]),
        ({"DYNO": "web.1"}, ["10.1.2.3", "127.0.0.1"]),
        ({"RENDER": "true"}, ["10.1.2.3", "104.22.17.40"]),
        ({"DYNO": "web.1", "TRUSTED_PROXIES": "none"}, []),
    ],
)
def test_the_settings_say_who_is_trusted(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], trusts: list[str] | None
) -> None:
    own = uvicorn.config.ProxyHeadersMiddleware  # type: ignore[attr-defined]  # as proxies does
    monkeypatch.setattr(uvicorn.config, "ProxyHeadersMiddleware", own)  # is put back
    made = proxies.middleware(read(variables))
    if trusts is None:
        assert not made
        return
    trusted: Any = made[0].kwargs["trusted"]
    hosts = ["10.1.2.3", "127.0.0.1", "104.22.17.40", STRANGER, "8.8.8.8"]
    assert [host for host in hosts if host in trusted] == [
        host for host in hosts if host in trusts or (host == "127.0.0.1" and "10.1.2.3" in trusts)
    ]


@pytest.mark.parametrize("variables", [{}, {"TRUSTED_PROXIES": "none"}])
def test_uvicorns_own_rule_makes_room(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    own = uvicorn.config.ProxyHeadersMiddleware  # type: ignore[attr-defined]  # as proxies does
    monkeypatch.setattr(uvicorn.config, "ProxyHeadersMiddleware", own)  # is put back
    proxies.middleware(read(variables))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    config = uvicorn.Config(app, log_config=None, forwarded_allow_ips="*")
    config.load()
    assert isinstance(config.loaded_app, own) == (not variables)


def test_every_word_has_its_networks() -> None:
    assert {*PROXIES} == NETWORKS.keys()
    assert Settings(trusted_proxies=", ".join(PROXIES))


@pytest.mark.parametrize(
    "wrong", ["*", "0.0.0.0/0", "::/0", "10.0.0.0/33", "private cloudflare", ","]
)
def test_nobody_can_trust_everybody(wrong: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings(trusted_proxies=wrong)
