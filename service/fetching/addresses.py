"""Which IP addresses a server may be sent to on behalf of its callers. Pure.

Public is what anybody on the internet can reach under that address: by IANA's registries of special-purpose addresses,
less what clouds answer to their own machines. The lists stand here because those of `ipaddress` change with Python.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host, this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a provider's NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: a cloud's metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo, benchmarks, ORCHID, anycast of protocols
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",
            "3fff::/20",  # documentation
        ),
    )
)
# Behind it stands an IPv4 address, which a network of IPv6 alone reaches so.
_NAT64 = IPv6Network("64:ff9b::/96")
# What networks of one owner use. Link-local addresses are not among them: no setting lets anybody ask for metadata.
_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    IPv6Network("::1/128"),
    IPv6Network("fc00::/7"),
)
# What machines in a cloud learn about themselves, under addresses that are otherwise public or private.
_METADATA = frozenset(map(ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))


def is_public(address: Address) -> bool:
    """Whether the address, or the IPv4 address inside it, is a public one.

    NAT64 is the only tunnel that is opened: 6to4 and Teredo lead to no pictures any more, and count as not public.
    """
    address = _unwrapped(address)
    if address in _METADATA:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return (
        address.scope_id is None
        and address in _UNICAST_V6
        and not any(address in network for network in _SPECIAL_V6)
    )  # fmt: skip


def is_private(address: Address) -> bool:
    """Whether the address belongs to networks of one owner, or to this machine: what a trusted host may have."""
    address = _unwrapped(address)
    if address in _METADATA or (isinstance(address, IPv6Address) and address.scope_id is not None):
        return False
    return any(address in network for network in _PRIVATE)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that the system, or the next router, makes of an IPv6 address, if it makes one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
