"""Whose `sw8` is continued: a stranger's would draw services that there are not."""

import functools
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

# Loopback, private and link-local addresses: where one's own services call from.
PRIVATE = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


def trust_in(networks: Sequence[str]) -> Callable[[str], bool]:
    """Make what tells whether an address is in one of them; raise ValueError for a wrong one."""
    trusted = [ip_network(network) for network in networks]

    @functools.lru_cache(maxsize=1024)
    def trusts(host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:  # a name, or nothing that was ever an address
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in trusted)

    return trusts
