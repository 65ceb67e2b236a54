from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetching.addresses import is_private, is_public

PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "192.0.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
]
NEVER = [
    "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.170.2", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "100.100.100.200", "::", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "5f00::1",
    "100::1", "2001::1", "2001:2::1", "2001:20::1", "fd00:ec2::254", "fd20:ce::254", "2606:4700::1%1",
    "64:ff9b:1::a00:1", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:7f00:1",
    "2002:7f00:1::", "2002:0a00:0001::1", "2001:0:7f00:1::", "::127.0.0.1", "::10.0.0.1", "2002:101:101::1",
]  # fmt: skip
PRIVATE = [
    "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.1.2.3", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "::1", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert not is_private(ip_address(address))


@pytest.mark.parametrize("address", NEVER)
def test_what_no_setting_allows_is_neither_public_nor_private(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not is_private(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_what_one_owner_uses_is_private(address: str) -> None:
    assert not is_public(ip_address(address))
    assert is_private(ip_address(address))


@pytest.mark.parametrize("address", ["::ffff:1.1.1.1", "64:ff9b::1.1.1.1"])
def test_an_address_of_ipv4_inside_one_of_ipv6_is_judged_itself(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.one_of(st.ip_addresses(), st.ip_addresses(network="2000::/3"), st.ip_addresses(network="::/64")))
def test_python_knows_every_public_address_as_global(address: IPv4Address | IPv6Address) -> None:
    if not is_public(address):
        return
    inside: IPv4Address | IPv6Address = address
    if isinstance(address, IPv6Address):
        inside = address.ipv4_mapped or address
        if address in IPv6Network("64:ff9b::/96"):
            inside = IPv4Address(int(address) & 0xFFFF_FFFF)
    assert inside.is_global
    assert not inside.is_multicast
    assert not inside.is_reserved


@given(st.ip_addresses(v=4))
def test_ipv6_around_an_address_makes_it_no_more_public(address: IPv4Address) -> None:
    number = int(address)
    for around in (0xFFFF << 32, 0x64FF9B << 96):
        assert is_public(IPv6Address(around | number)) == is_public(address)
        assert is_private(IPv6Address(around | number)) == is_private(address)
    for tunnel in (number, 0xFFFF << 48 | number, 0x2002 << 112 | number << 80, 0x2001 << 112 | number << 64):
        assert not is_public(IPv6Address(tunnel))
