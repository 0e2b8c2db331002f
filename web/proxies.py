"""Who the client is behind proxies: X-Forwarded-For counts as far as trusted proxies wrote it.

uvicorn has a middleware for this, which every start of it has by default. It trusts this machine,
or FORWARDED_ALLOW_IPS; and where that is `*`, as Heroku's buildpack for Python sets it, it takes
the leftmost address, which the client may have written. So where TRUSTED_PROXIES is set, or the
platform known, this one stands in its place. `Forwarded` (RFC 7239) is not read: proxies that set
X-Forwarded-For let it through as the client sent it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from afterwards.addresses import parsed, within
from settings import Settings

MAX_HOPS = 20  # no chain of proxies is longer; what stands left of them is not looked at
MAX_HOP = 60  # characters of an address and its port
HOP = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|(?P<v4>[0-9.]+)(?::(\d{1,5}))?|(.*)")
SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss")}

NETWORKS = {
    "private": "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 ::1 fc00::/7",
    # https://www.cloudflare.com/ips/, through which Render's routers are reached.
    "cloudflare": "173.245.48.0/20 103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 141.101.64.0/18"
    " 108.162.192.0/18 190.93.240.0/20 188.114.96.0/20 197.234.240.0/22 198.41.128.0/17"
    " 162.158.0.0/15 104.16.0.0/13 104.24.0.0/14 172.64.0.0/13 131.0.72.0/22 2400:cb00::/32"
    " 2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29 2c0f:f248::/32",
    "unix": "",
    "none": "",
}

Address = tuple[str, int]


def middleware(settings: Settings) -> list[Middleware]:
    """List what finds the client; nothing, where uvicorn's own rule is to hold."""
    words = settings.trusted_proxies or _platforms(settings)
    if words is None:
        return []
    _take_place_of_uvicorns()
    return [Middleware(TrueClient, trusted=Trusted(words.split(",")))]


class Trusted:
    """The addresses that are trusted, by networks and the names of some."""

    def __init__(self, words: Iterable[str]) -> None:
        said = [word.strip() for word in words]
        self._is_in = within(" ".join(NETWORKS.get(word, word) for word in said).split())
        self._has_unix = "unix" in said

    def __contains__(self, host: str | None) -> bool:
        return self._is_in(host) if host else self._has_unix


class TrueClient:
    """Puts the client's address and scheme into the scope, whoever sent the request on."""

    def __init__(self, app: ASGIApp, trusted: Trusted) -> None:
        self.app, self.trusted = app, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            peer = scope.get("client")
            if (peer[0] if peer else None) in self.trusted:
                self._believe(scope)
        await self.app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        hops = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if hops and (client := forwarded_client(b",".join(hops).decode("latin-1"), self.trusted)):
            scope["client"] = client
        schemes = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if schemes:
            said = schemes[-1].decode("latin-1").rpartition(",")[2].strip().lower()
            names = SCHEMES.get(said)
            scope["scheme"] = names[scope["type"] == "websocket"] if names else scope["scheme"]


def forwarded_client(forwarded: str, trusted: Trusted) -> Address | None:
    """Find the address that the outermost trusted proxy wrote, if it is one.

    From right to left, as each proxy adds its own client at the right. Where all are trusted it is
    the leftmost; what is no address ends the search, and the one found before it is the client.
    """
    client = None
    for hop in reversed(forwarded.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        if not hop.strip():
            continue
        found = hop_address(hop.strip()) if len(hop) <= MAX_HOP else None
        if found is None:
            break
        client = found
        if client[0] not in trusted:
            break
    return client


@lru_cache(maxsize=4096)
def hop_address(hop: str) -> Address | None:
    """Read an address, with or without brackets and a port; None where it is none."""
    match = HOP.fullmatch(hop)
    if match is None or "%" in hop:  # the zone of an IPv6 address may be any text
        return None
    v6, port6, v4, port4, bare = match.groups()
    found = parsed(v6 or v4 or bare)
    return (str(found), int(port6 or port4 or 0)) if found else None


def _platforms(settings: Settings) -> str | None:
    if settings.render:
        return "private, cloudflare"
    return "private" if settings.dyno else None


def _take_place_of_uvicorns() -> None:
    # It is put around the application after that was imported, however uvicorn is started; an
    # option in the Procfile would leave `uvicorn asgi_app:app` out.
    uvicorn.config.ProxyHeadersMiddleware = _only  # type: ignore[attr-defined, assignment]


def _only(app: ASGIApp, **_: object) -> ASGIApp:
    return app
