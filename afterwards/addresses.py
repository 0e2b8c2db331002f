"""Clients' addresses: an IPv4 one is the same however a socket for both writes it."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_ADDRESS = 60  # characters; what is longer is none, and is not remembered as it came


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is, of `::ffff:192.0.2.1` the IPv4 one; else None."""
    try:
        found = ip_address(text)
    except ValueError:  # a Unix socket's, or what a proxy let through
        return None
    return getattr(found, "ipv4_mapped", None) or found


def network_of(address: str) -> str:
    """Return what one client has of an address: of IPv6 that is half. What is none is one, too."""
    return _network_of(address[:MAX_ADDRESS])


def within(networks: Iterable[str]) -> Callable[[str], bool]:
    """Make what tells whether an address is in one of them; raise ValueError for a wrong one."""
    them = [ip_network(network) for network in networks]

    @lru_cache(maxsize=4096)
    def look(host: str) -> bool:
        address = parsed(host)
        return address is not None and any(address in network for network in them)

    return lambda host: look(host[:MAX_ADDRESS])


@lru_cache(maxsize=4096)
def _network_of(address: str) -> str:
    found = parsed(address)
    if found is None:
        return ""
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
