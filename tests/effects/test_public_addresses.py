"""Which addresses are public, and that the transport connects to those alone."""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import httpx
import pytest

from effects.public_addresses import (
    NOT_PUBLIC_IPV4,
    NOT_PUBLIC_IPV6,
    AddressRefused,
    PublicOnlyTransport,
    is_public,
)
from tests.effects.conftest import Certificate
from tests.effects.loopback import reply, serving

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.215.14"
ALSO_PUBLIC = "8.8.8.8"


class Names:
    """A name server that gives its answers in turn, then the last again; it keeps what is asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Wire:
    """Stands for the internet, which a test cannot have: notes what is sent where, and answers."""

    def __init__(self, *responses: httpx.Response | httpx.TransportError) -> None:
        self.responses = list(responses)
        self.sent: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        response = self.responses.pop(0) if self.responses else httpx.Response(200)
        if isinstance(response, httpx.TransportError):
            raise response
        return response


async def get(url: str, transport: httpx.AsyncBaseTransport) -> httpx.Response:
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        return await client.get(url)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450::1",
    ],
)
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "100::1",
        "5f00::1",
    ],
)
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:4860:4860::8888%1",
    ],
)
def test_embedding_or_scoped_ipv6_is_private(
    address: str,
) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("block", [*NOT_PUBLIC_IPV4, *NOT_PUBLIC_IPV6], ids=str)
def test_both_block_ends_are_not_public(
    block: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    assert not is_public(block[0])
    assert not is_public(block[-1])


def test_pythons_private_addresses_are_never_public() -> None:
    starts = [ipaddress.IPv4Address(number << 16) for number in range(1 << 16)]
    assert not [address for address in starts if is_public(address) and not address.is_global]


def test_anything_but_addresses_is_an_error() -> None:
    with pytest.raises(ValueError, match="localhost"):
        is_public("localhost")


async def test_connections_go_to_the_checked_address() -> None:
    names, wire = Names([PUBLIC], ["127.0.0.1"]), Wire()
    transport = PublicOnlyTransport(resolve=names, inner=wire.transport)
    await get("http://rebinding.example/a?b=c", transport)
    assert names.asked == ["rebinding.example"]
    assert [str(request.url) for request in wire.sent] == [f"http://{PUBLIC}/a?b=c"]
    with pytest.raises(AddressRefused):
        await get("http://rebinding.example/", transport)
    assert len(wire.sent) == 1


async def test_server_and_tls_see_the_name() -> None:
    wire = Wire()
    transport = PublicOnlyTransport(
        resolve=Names([PUBLIC]), inner=wire.transport, allow_private=True
    )
    await get("https://bücher.example:8443/", transport)
    assert wire.sent[0].headers["host"] == "xn--bcher-kva.example:8443"
    assert wire.sent[0].extensions["sni_hostname"] == "xn--bcher-kva.example"
    assert wire.sent[0].url.port == 8443


async def test_public_ipv6_addresses_are_connected_to() -> None:
    wire = Wire()
    await get(
        "http://six.example/",
        PublicOnlyTransport(resolve=Names(["2606:4700::1111"]), inner=wire.transport),
    )
    assert str(wire.sent[0].url) == "http://[2606:4700::1111]/"


@pytest.mark.parametrize(
    "url", [f"http://{PUBLIC}:22/", "https://x.example:8443/", "http://x.example:0/"]
)
async def test_another_port_is_refused(url: str) -> None:
    wire = Wire()
    with pytest.raises(AddressRefused, match="ports 80 and 443"):
        await get(url, PublicOnlyTransport(resolve=Names([PUBLIC]), inner=wire.transport))
    assert not wire.sent


@pytest.mark.parametrize(
    "url", ["http://x.example:443/", "https://x.example:80/", "http://x.example:80/"]
)
async def test_both_web_ports_are_taken(url: str) -> None:
    wire = Wire()
    await get(url, PublicOnlyTransport(resolve=Names([PUBLIC]), inner=wire.transport))
    assert len(wire.sent) == 1


@pytest.mark.parametrize("answer", [[PUBLIC, "10.0.0.1"], ["::1", PUBLIC], ["127.0.0.1"]])
async def test_one_private_address_refuses_the_host(answer: list[str]) -> None:
    wire = Wire()
    with pytest.raises(AddressRefused, match=r"^mixed\.example is not on the public internet$"):
        await get(
            "http://u:p@mixed.example/x?y",
            PublicOnlyTransport(resolve=Names(answer), inner=wire.transport),
        )
    assert not wire.sent


async def test_allowed_private_addresses_are_reached() -> None:
    async with serving(reply(200, b"hello")) as server:
        names = Names(["127.0.0.1"])
        response = await get(
            f"http://x.example:{server.port}/",
            PublicOnlyTransport(allow_private=True, resolve=names),
        )
    assert response.text == "hello"
    assert server.asked[0].headers["host"] == f"x.example:{server.port}"
    assert names.asked == ["x.example"]


async def test_a_redirect_to_loopback_is_refused() -> None:
    wire = Wire(httpx.Response(302, headers={"location": "http://127.0.0.1/admin"}))
    with pytest.raises(AddressRefused):
        await get(f"http://{PUBLIC}/", PublicOnlyTransport(inner=wire.transport))
    assert len(wire.sent) == 1


async def test_redirects_to_public_hosts_are_followed() -> None:
    wire = Wire(httpx.Response(302, headers={"location": f"http://{ALSO_PUBLIC}/b"}))
    await get(f"http://{PUBLIC}/", PublicOnlyTransport(inner=wire.transport))
    assert [request.url.host for request in wire.sent] == [PUBLIC, ALSO_PUBLIC]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "[64:ff9b::7f00:1]",
        "[fe80::1%1]",
        "2130706433",
        "017700000001",
    ],
)
async def test_this_machines_every_spelling_is_refused(host: str) -> None:
    async with serving(reply(200)) as server:
        with pytest.raises(AddressRefused, match="not on the public internet"):
            await get(f"http://{host}:{server.port}/", PublicOnlyTransport())
    assert not server.connections


@pytest.mark.parametrize("host", ["[fe80::1%25lo]", "localhost.", "a..b", "a" * 64 + ".example"])
async def test_spellings_without_address_reach_nothing(
    host: str,
) -> None:
    async with serving(reply(200)) as server:
        with pytest.raises((AddressRefused, httpx.ConnectError, httpx.InvalidURL)):
            await get(f"http://{host}:{server.port}/", PublicOnlyTransport())
    assert not server.connections


@pytest.mark.parametrize(
    "url", ["ftp://8.8.8.8/", "file:///etc/passwd", "ws://8.8.8.8/", "gopher://8.8.8.8/", "/x"]
)
async def test_another_scheme_is_refused(url: str) -> None:
    wire = Wire()
    with pytest.raises((AddressRefused, httpx.UnsupportedProtocol)):
        await get(url, PublicOnlyTransport(inner=wire.transport))
    assert not wire.sent


async def test_failed_connections_try_the_next_address() -> None:
    async with serving(reply(200, b"second")) as server:
        transport = PublicOnlyTransport(
            allow_private=True, resolve=Names(["127.0.0.2", "127.0.0.1"])
        )
        response = await get(f"http://two.example:{server.port}/", transport)
    assert response.text == "second"


async def test_begun_requests_try_no_other_address() -> None:
    wire = Wire(httpx.ReadError("cut off"))
    with pytest.raises(httpx.ReadError):
        await get(
            "http://x.example",
            PublicOnlyTransport(resolve=Names([PUBLIC, ALSO_PUBLIC]), inner=wire.transport),
        )
    assert len(wire.sent) == 1


@pytest.mark.parametrize("answer", [[], [PUBLIC, ALSO_PUBLIC]])
async def test_unconnectable_hosts_are_connect_errors(answer: list[str]) -> None:
    wire = Wire(httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"))
    with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
        await get(
            "http://x.example/", PublicOnlyTransport(resolve=Names(answer), inner=wire.transport)
        )
    assert len(wire.sent) == len(answer)


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(reply(200)) as server:
        assert (await get(server.url, PublicOnlyTransport(allow_private=True))).status_code == 200


def trusting(
    certificate: Certificate, answer: Callable[[str, int], Awaitable[Sequence[str]]]
) -> PublicOnlyTransport:
    inner = httpx.AsyncHTTPTransport(verify=certificate.client, trust_env=False)
    return PublicOnlyTransport(allow_private=True, resolve=answer, inner=inner)


async def test_tls_verifies_the_name_not_address(certificate: Certificate) -> None:
    async with serving(reply(200, b"private"), tls=certificate.server) as server:
        url = f"https://pictures.example:{server.port}/"
        assert (await get(url, trusting(certificate, Names(["127.0.0.1"])))).text == "private"


async def test_tls_refuses_another_name_there(certificate: Certificate) -> None:
    async with serving(reply(200), tls=certificate.server) as server:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await get(
                f"https://other.example:{server.port}/", trusting(certificate, Names(["127.0.0.1"]))
            )
    assert not server.asked


async def test_two_names_never_share_a_connection() -> None:
    async with serving(reply(200)) as server:
        transport = PublicOnlyTransport(allow_private=True, resolve=Names(["127.0.0.1"]))
        async with httpx.AsyncClient(transport=transport) as client:
            for name in ("a.example", "b.example", "b.example"):
                await client.get(f"http://{name}:{server.port}/")
        assert server.connections == 3


async def test_ordinary_transports_would_share_connections() -> None:
    async with serving(reply(200)) as server:
        inner = httpx.AsyncHTTPTransport(trust_env=False)
        transport = PublicOnlyTransport(
            allow_private=True, resolve=Names(["127.0.0.1"]), inner=inner
        )
        async with httpx.AsyncClient(transport=transport) as client:
            for name in ("a.example", "b.example"):
                await client.get(f"http://{name}:{server.port}/")
        assert server.connections == 1
