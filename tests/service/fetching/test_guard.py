"""No URL, however written, makes the server connect to an address that is not public: a listener hears nothing."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid, ServiceError
from service.fetching.addresses import is_public
from service.fetching.allowlist import Allowlist
from service.fetching.fetcher import Fetcher
from service.fetching.resolver import Resolver, SystemResolver
from service.fetching.turns import Turns
from tests.service.fetching.hosts import (
    NO_TLS,
    AllAllowed,
    Host,
    Listener,
    Names,
    Room,
    Wiretap,
    fetch,
    image,
    redirect,
)
from tests.service.fetching.test_addresses import NEVER, PRIVATE
from tests.service.running import PATIENCE_S

NOT_PUBLIC = [*NEVER, *PRIVATE]
FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９。")
CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def guarded(resolver: Resolver | None = None, tcp: Wiretap | None = None) -> Fetcher:
    """Lets any URL through but for its address."""
    return Fetcher(
        AllAllowed(), resolver=resolver or Names(), timeout_s=PATIENCE_S, turns=Turns(4), tcp=tcp, tls=NO_TLS
    )


def own_addresses() -> set[str]:
    """This machine's own, if it is no public one, beside those that every machine has."""
    found = {"127.0.0.1", "0.0.0.0", "::1", "::"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        found.add(probe.getsockname()[0])
    return {address for address in found if not ip_address(address).is_global}


def spellings(address: IPv4Address | IPv6Address) -> list[str]:
    """Every way that anything is known to read as this address."""
    if isinstance(address, IPv6Address):
        inside = [] if address.scope_id else [f"[{address.exploded}]", f"[{address.exploded.upper()}]"]
        return [f"[{address}]", f"[{str(address).partition('%')[0]}%25lo]", str(address), *inside]
    a, b, c, d = address.packed
    number = int(address)
    return [
        str(address), str(number), f"{number:#x}", f"0{number:o}", f"{a}.{b}.{c * 256 + d}", f"{a}.{number & 0xFFFFFF}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:03}.{b:03}.{c:03}.{d:03}", f"{address}.",
        f"{a:#x}.{b}.0{c:o}.{d}", f"{number + 2**32}", f"%{ord(str(a)[0]):x}{str(address)[1:]}", quote(str(address)),
        str(address).translate(FULL_WIDTH), str(address).translate(CIRCLED), f"images.example.com@{address}",
        f"images.example.com:80@{address}", f"{address}#@images.example.com", f"{address}\\@images.example.com",
        f"images.example.com\\@{address}", f" {address}", f"{address}\t", f"{address}\x00.example.com",
        f"[::{address}]", f"[{address}]",
        f"[::ffff:{address}]", f"[::FFFF:{number >> 16:x}:{number & 0xFFFF:x}]", f"[0:0:0:0:0:ffff:{address}]",
        f"[64:ff9b::{address}]", f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]", f"[::ffff:0:{address}]",
    ]  # fmt: skip


def check_refused(fetcher: Fetcher, url: str, listener: Listener) -> None:
    with pytest.raises(ServiceError) as caught:
        fetch(fetcher, url)
    # Not a failure to connect: nothing was tried.
    assert type(caught.value) is Invalid, caught.value.message
    assert not listener.heard(), url


@pytest.mark.parametrize("text", [*NOT_PUBLIC, *sorted(own_addresses() - set(NOT_PUBLIC))])
def test_no_spelling_of_an_address_that_is_not_public_is_connected_to(text: str, listener: Listener) -> None:
    address = ip_address(text)
    for spelling in spellings(address):
        for url in (f"http://{spelling}:{listener.port}/a", f"https://{spelling}:{listener.port}"):
            check_refused(guarded(), url, listener)


@given(st.ip_addresses().filter(lambda address: not is_public(address)), st.integers(0, 40))
def test_no_spelling_of_any_address_that_is_not_public_is_connected_to(
    listener: Listener, address: IPv4Address | IPv6Address, which: int
) -> None:
    ways = spellings(address)
    check_refused(guarded(), f"http://{ways[which % len(ways)]}:{listener.port}/", listener)


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST", "localhost.localdomain", "ip6-localhost", socket.gethostname()]
)
def test_no_name_of_this_machine_is_connected_to(name: str, listener: Listener) -> None:
    check_refused(guarded(SystemResolver(4)), f"http://{name}:{listener.port}/", listener)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_no_name_with_an_address_that_is_not_public_is_connected_to(address: str, listener: Listener) -> None:
    names = Names(a_test=[address], b_test=["1.1.1.1", address], c_test=[address, "2606:4700::1111"])
    tcp = Wiretap()
    for host in ("a.test", "b.test", "c.test"):
        check_refused(guarded(names, tcp), f"http://{host}:{listener.port}/", listener)
    assert not tcp.asked


def test_a_caller_cannot_tell_names_and_addresses_of_the_network_apart() -> None:
    names = Names(minio_test=["10.0.0.7"], meta_test=["169.254.169.254"], mixed_test=["1.1.1.1", "::1"])
    said = set()
    for host in (
        "minio.test",
        "meta.test",
        "mixed.test",
        "unknown.test",
        "10.0.0.8",
        "127.0.0.1",
        "[::1]",
        "[fe80::1]",
    ):
        with pytest.raises(Invalid) as caught:
            fetch(guarded(names), f"http://{host}/")
        said.add((caught.value.message, caught.value.param, caught.value.status))
    assert len(said) == 1


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "rebound.test", "2130706433"]
)
def test_no_redirect_leads_to_this_machine(address: str, listener: Listener) -> None:
    names = Names(images_test=["1.1.1.1"], rebound_test=["127.0.0.1"], localhost=["127.0.0.1"])
    with Host({"/": redirect(f"http://{address}:{listener.port}/a")}) as host:
        tcp = Wiretap()
        check_refused(guarded(names, tcp), host.url("/"), listener)
        assert tcp.asked == ["1.1.1.1"]


def test_a_host_is_resolved_once_and_connected_to_where_it_was_found() -> None:
    names = Names(images_test=[["1.1.1.1"], ["127.0.0.1"]])
    with Host({"/": image(b"abc")}) as host:
        tcp = Wiretap()
        assert fetch(guarded(names, tcp), host.url("/")) == b"abc"
    assert names.asked == [("images.test", False)]
    assert tcp.asked == ["1.1.1.1"]


def test_a_host_whose_answer_changes_is_checked_again_at_its_redirect(listener: Listener) -> None:
    names = Names(images_test=[["1.1.1.1"], ["127.0.0.1"]])
    with Host({"/": redirect("/a"), "/a": image(b"abc")}) as host:
        tcp = Wiretap()
        check_refused(guarded(names, tcp), host.url("/"), listener)
        assert tcp.asked == ["1.1.1.1"]
        assert len(host.heads) == 1


def test_further_addresses_are_tried_a_few_of_each_kind() -> None:
    found = ["2606:4700::1", "2606:4700::2", "2606:4700::3", "1.1.1.1", "1.1.1.2", "1.1.1.3"]
    with Host({"/": image(b"abc")}) as host:
        tcp = Wiretap(*found[:4])
        assert fetch(guarded(Names(images_test=found), tcp), host.url("/")) == b"abc"
    assert tcp.asked == ["2606:4700::1", "2606:4700::2", "1.1.1.1", "1.1.1.2"]


def test_connections_are_not_kept_for_another_fetch() -> None:
    names = Names(images_test=[["1.1.1.1"], ["1.1.1.1"], ["10.0.0.1"]])
    with Host({"/": image(b"abc")}) as host:
        tcp = Wiretap()
        fetcher = guarded(names, tcp)

        async def main() -> None:
            for _ in range(2):
                await fetcher.fetch(fetcher.read(host.url("/")), Room(), request="1")
            with pytest.raises(Invalid):
                await fetcher.fetch(fetcher.read(host.url("/")), Room(), request="1")

        asyncio.run(main())
    assert tcp.asked == ["1.1.1.1"] * 2


# Hosts that the operator trusts with private addresses


@pytest.mark.parametrize("address", PRIVATE)
def test_a_trusted_host_may_have_a_private_address(address: str) -> None:
    with Host({"/": image(b"abc")}) as host:
        tcp = Wiretap()
        allowlist = Allowlist([f"private minio:{host.port}"])
        fetcher = Fetcher(
            allowlist, resolver=Names(minio=[address]), timeout_s=PATIENCE_S, turns=Turns(4), tcp=tcp, tls=NO_TLS
        )
        assert fetch(fetcher, host.url("/", name="minio")) == b"abc"
        assert tcp.asked == [str(ip_address(address))]


@pytest.mark.parametrize("address", NEVER)
def test_a_trusted_host_may_not_have_an_address_that_nobody_should_ask(address: str) -> None:
    tcp = Wiretap()
    allowlist = Allowlist(["private minio:9000"])
    fetcher = Fetcher(
        allowlist, resolver=Names(minio=[address]), timeout_s=PATIENCE_S, turns=Turns(4), tcp=tcp, tls=NO_TLS
    )
    with pytest.raises(Invalid):
        fetch(fetcher, "http://minio:9000/")
    assert not tcp.asked


def test_a_listed_host_that_is_not_marked_private_has_public_addresses_alone(listener: Listener) -> None:
    allowlist = Allowlist([f"images.test:{listener.port}"])
    names = Names(images_test=["127.0.0.1"])
    fetcher = Fetcher(allowlist, resolver=names, timeout_s=PATIENCE_S, turns=Turns(4))
    check_refused(fetcher, f"http://images.test:{listener.port}/", listener)
