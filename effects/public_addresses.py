"""Which addresses an untrusted URL may reach, and a transport that connects to no other."""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from effects import tls
from effects.resolver import resolve

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Any other is no place for a picture, and would let a stranger find out which ports answer.
PORTS = (None, 80, 443)

# IANA IPv4 Special-Purpose Address Registry (RFC 6890), but for what it calls globally reachable.
NOT_PUBLIC_IPV4 = [
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network: RFC 791; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private: RFC 1918
        "100.64.0.0/10",  # shared, behind carrier-grade NAT: RFC 6598; Alibaba's metadata
        "127.0.0.0/8",  # loopback: RFC 1122
        # in no registry: Azure's platform endpoint, answered by the machine's own host
        "168.63.129.16/32",
        "169.254.0.0/16",  # link-local: RFC 3927; the clouds' metadata
        "172.16.0.0/12",  # private: RFC 1918
        "192.0.0.0/24",  # protocol assignments: RFC 6890; Oracle's metadata
        "192.0.2.0/24",  # documentation: RFC 5737
        "192.88.99.0/24",  # 6to4 relays: RFC 7526
        "192.168.0.0/16",  # private: RFC 1918
        "198.18.0.0/15",  # benchmarks: RFC 2544
        "198.51.100.0/24",  # documentation: RFC 5737
        "203.0.113.0/24",  # documentation: RFC 5737
        "224.0.0.0/4",  # multicast: RFC 5771
        "240.0.0.0/4",  # reserved, and broadcast: RFC 1112, RFC 919
    )
]

# RFC 4291, and the registry of IPv6 global unicast: nothing outside is assigned. So loopback,
# unique local, link-local, multicast and every form that carries an IPv4 address (::/96,
# ::ffff:0:0/96, 64:ff9b::/96) stay out.
GLOBAL_UNICAST_IPV6 = IPv6Network("2000::/3")

# IANA IPv6 Special-Purpose Address Registry (RFC 6890), as far as it lies inside global unicast.
NOT_PUBLIC_IPV6 = [
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, with Teredo, ORCHID and benchmarks: RFC 2928
        "2001:db8::/32",  # documentation: RFC 3849
        "2002::/16",  # 6to4, which carries an IPv4 address: RFC 3056
        "3fff::/20",  # documentation: RFC 9637
    )
]


class AddressRefused(Exception):
    """An untrusted URL leads where it may not; the text names its host and nothing else of it."""


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Tell whether anyone on the internet could reach this address.

    A list of what is public, because `ipaddress.is_global` lets 6to4, IPv4-compatible and SIIT
    forms of a private address through on Python 3.11. Raises ValueError for text that is no
    address.
    """
    parsed = ip_address(str(address))
    if isinstance(parsed, IPv4Address):
        return not any(parsed in block for block in NOT_PUBLIC_IPV4)
    return (
        parsed.scope_id is None
        and parsed in GLOBAL_UNICAST_IPV6
        and not any(parsed in block for block in NOT_PUBLIC_IPV6)
    )


class PublicOnlyTransport(httpx.AsyncBaseTransport):
    """Send each request, hence each redirect, to a public address that was checked just before.

    The name is resolved once per request and the connection goes to an address of that very answer,
    so that a name server which answers differently the second time gains nothing. One address that
    is not public refuses the host, and so does a port other than 80 and 443. Raises AddressRefused,
    otherwise httpx's own errors. Reads no proxy, certificate or .netrc setting from the
    environment. `allow_private` drops the checks, not the pinning; `inner` is what connects.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolve = resolve,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._inner = inner or _unpooled()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Try the host's addresses in turn until one accepts the connection."""
        host = _host(request.url)
        failure: httpx.TransportError = httpx.ConnectError(f"{host} has no address")
        for address in await self._checked(host, request.url):
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close what is still open below."""
        await self._inner.aclose()

    async def _checked(self, host: str, url: httpx.URL) -> Sequence[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(host, port)
        except (OSError, ValueError):  # a name too long for DNS is a UnicodeError
            raise httpx.ConnectError(f"{host} does not resolve") from None
        if not (self._allow_private or all(map(is_public, addresses))):
            raise AddressRefused(f"{host} is not on the public internet")
        if not self._allow_private and url.port not in PORTS:
            raise AddressRefused(f"{host} is asked on ports 80 and 443 only")
        return addresses


def _unpooled() -> httpx.AsyncHTTPTransport:
    # A kept connection belongs to an address, not to a name: another name at that address would
    # travel over TLS that was verified for the first.
    return httpx.AsyncHTTPTransport(
        verify=tls.verifying(), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )


def _host(url: httpx.URL) -> str:
    # raw_host, since `url.host` decodes punycode and raises on what is none.
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https") or not host:
        raise AddressRefused("only http and https URLs with a host are fetched")
    if (url.port or 0) > 65535:
        raise AddressRefused(f"{host} has no port {url.port}")
    return host


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # with the Host that the URL named
        stream=request.stream,
        # Certificates are made out to names without the root's dot.
        extensions={**request.extensions, "sni_hostname": host.removesuffix(".")},
    )
