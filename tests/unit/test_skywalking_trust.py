"""A `sw8` is continued for one's own networks only, by the address that it came from."""

import pytest

from afterwards.addresses import within
from afterwards.skywalking.trust import PRIVATE


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.8.9.10", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.1.1"),
        *("::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_private_addresses_are_trusted(host: str) -> None:
    assert within(PRIVATE)(host)


@pytest.mark.parametrize(
    "host",
    [
        *("8.8.8.8", "172.32.0.1", "192.169.0.1", "100.64.0.1", "0.0.0.0", "2001:db8::1"),
        *("::ffff:8.8.8.8", "localhost", "testclient", "", "10.0.0.1:80", "010.0.0.1"),
    ],
)
def test_no_others_are_trusted(host: str) -> None:
    assert not within(PRIVATE)(host)


def test_only_the_given_networks_are_trusted() -> None:
    trusts = within(["203.0.113.0/24", "2001:db8::/32"])
    assert trusts("203.0.113.9")
    assert trusts("2001:db8::9")
    assert not trusts("127.0.0.1")
    assert not within([])("127.0.0.1")


def test_a_wrong_network_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits set"):
        within(["10.0.0.1/8"])
