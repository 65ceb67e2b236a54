"""What hosts may do, honest or not, and what a fetch makes of it."""

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from service.errors import FetchFailed, Invalid, ServiceError, TooLarge
from service.fetching.allowlist import Allowlist
from service.fetching.failures import FetchOutcome, TimedOut
from service.fetching.fetcher import Fetcher
from service.fetching.turns import Turns
from tests.service.fetching.hosts import (
    CERTIFICATE,
    Host,
    Listener,
    Names,
    Reply,
    Room,
    Wiretap,
    fetch,
    hang,
    image,
    redirect,
    reply,
    trusting,
)
from tests.service.running import PATIENCE_S, until

PICTURE = bytes(range(256)) * 1000
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def host() -> Iterator[Host]:
    with Host({"/a.png": image(PICTURE)}) as made:
        yield made


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def refusal(host: Host, answer: Reply, *, room: Room | None = None, timeout_s: float = PATIENCE_S) -> ServiceError:
    """What is raised if the host answers so. Nothing stays charged but what the room shows."""
    host.answers["/"] = answer
    with pytest.raises(ServiceError) as caught:
        fetch(trusting(host, timeout_s=timeout_s), host.url("/"), room)
    return caught.value


# The usual


def test_the_bytes_under_a_url_are_fetched_and_charged_before_they_are_held(host: Host) -> None:
    room = Room()
    assert fetch(trusting(host), host.url("/a.png"), room) == PICTURE
    # The whole has to fit. Then what comes is charged, with some ahead of it.
    assert room.checked == [len(PICTURE)]
    assert room.reserved[0] == 64 * 1024
    assert room.reserved == sorted(room.reserved)


def test_a_request_names_its_host_and_brings_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers["/%C3%A4?b=%20"] = image(b"x")
    fetch(trusting(host), host.url("/ä?b=%20#c"))
    first, *fields = host.heads[0].split("\r\n")
    assert first == "GET /%C3%A4?b=%20 HTTP/1.1"
    assert fields[0] == f"Host: images.test:{host.port}"
    assert {field.partition(":")[0] for field in fields if field} == {
        "Host", "User-Agent", "Accept", "Accept-Encoding", "Connection",
    }  # fmt: skip


def test_neither_proxies_nor_passwords_of_the_environment_are_used(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    netrc = tmp_path / "netrc"  # type: ignore[operator]
    netrc.write_text("machine images.test login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Host() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetch(trusting(host), host.url("/a.png")) == PICTURE
        assert not proxy.heads
    assert "authorization" not in host.heads[0].lower()


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "IMAGE/PNG; charset=binary", "application/octet-stream", "binary/octet-stream", "", None]
)
def test_images_come_under_the_types_that_stores_give_them(host: Host, kind: str | None) -> None:
    host.answers["/"] = reply(b"abc", *([] if kind is None else [f"Content-Type: {kind}"]))
    assert fetch(trusting(host), host.url("/")) == b"abc"


def test_a_body_may_be_chunked_or_end_with_the_connection(host: Host) -> None:
    host.answers |= {
        "/chunked": reply(chunks(b"ab", b"c" * 100_000, b""), CHUNKED, length=False),
        "/closed": reply(b"d" * 200_000, length=False),
        "/continued": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(b"e"),
    }
    fetcher = trusting(host)
    assert fetch(fetcher, host.url("/chunked")) == b"ab" + b"c" * 100_000
    assert fetch(fetcher, host.url("/closed")) == b"d" * 200_000
    assert fetch(fetcher, host.url("/continued")) == b"e"


# Redirects


@pytest.mark.parametrize("status", ["301 a", "302 b", "303 c", "307 d", "308 e"])
def test_redirects_are_followed(host: Host, status: str) -> None:
    host.answers |= {"/1/a": redirect("../2/b?c", status), "/2/b?c": redirect(host.url("/a.png"), status)}
    assert fetch(trusting(host), host.url("/1/a")) == PICTURE
    assert len(host.heads) == 3


def test_no_cookie_and_no_referrer_goes_from_one_host_to_the_next(host: Host) -> None:
    host.answers["/"] = reply(b"", "Location: /a.png", "Set-Cookie: a=b", status="302 Found")
    fetch(trusting(host), host.url("/"))
    assert "cookie" not in host.heads[1].lower()
    assert "referer" not in host.heads[1].lower()


def test_redirects_have_an_end(host: Host) -> None:
    assert "more than 5 times" in refusal(host, redirect("/")).message
    assert len(host.heads) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd", "ftp://images.test/a", "gopher://images.test/", "http://user:secret@images.test/",
        "//images.test/a", "http://other.test/", "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/", "http://images.test:22/", "/a/%2e%2e/b", "\\\\images.test\\a", "http://2130706433/", "\x01",
    ],
)  # fmt: skip
def test_each_redirect_is_a_url_like_any_other(host: Host, location: str) -> None:
    error = refusal(host, redirect(location))
    assert isinstance(error, Invalid)
    assert "redirects to one that is not fetched" in error.message
    assert "secret" not in error.message
    assert len(host.heads) == 1


def test_a_redirect_without_a_place_is_no_image(host: Host) -> None:
    assert "status 302" in refusal(host, reply(status="302 Found")).message


# Hosts that do not give an image


@pytest.mark.parametrize(
    "status", ["204 a", "206 b", "304 c", "400 d", "401 e", "403 f", "404 g", "429 h", "500 i", "503 j", "999 k"]
)
def test_any_other_status_is_told(host: Host, status: str) -> None:
    error = refusal(host, reply(b"not this", status=status))
    assert (error.status, error.code) == (422, "fetch_failed")
    assert f"status {status[:3]}" in error.message
    assert "not this" not in error.message


@pytest.mark.parametrize(
    "kind", ["text/html; charset=utf-8", "text/plain", "application/json", "imagex/png", "x" * 500]
)
def test_what_is_no_image_is_named(host: Host, kind: str) -> None:
    error = refusal(host, reply(b"<html>", f"Content-Type: {kind}"))
    assert kind[:50] in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "x-gzip", "identity, gzip"])
def test_what_is_compressed_is_not_opened(host: Host, coding: str) -> None:
    assert "compresses" in refusal(host, reply(b"\x1f\x8b", f"Content-Encoding: {coding}")).message


def test_nothing_is_no_image(host: Host) -> None:
    assert "nothing" in refusal(host, image(b"")).message


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 1000, b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n",
        reply(b"abc", "Content-Length: 4"), reply(b"abc", "Content-Length: 0x3", length=False),
        reply(b"x\r\n", CHUNKED, length=False), reply(b"3\r\nabcd\r\n0\r\n\r\n", CHUNKED, length=False),
        reply(b"abc", "Transfer-Encoding: gzip, chunked", length=False), reply(chunks(b"abc"), CHUNKED, length=False),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_http_or_not_whole_is_a_failure_of_the_host(host: Host, answer: bytes) -> None:
    room = Room()
    assert type(refusal(host, answer, room=room)) is FetchFailed


def test_a_connection_that_is_reset_is_a_failure_of_the_host(host: Host) -> None:
    def reset(connection: socket.socket) -> None:
        connection.sendall(reply(b"half", "Content-Length: 100", length=False))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert "broke off" in refusal(host, reset).message


def test_a_host_that_takes_no_connection_is_told(host: Host) -> None:
    with Host() as closed:
        pass
    with pytest.raises(FetchFailed, match="takes no connection"):
        fetch(trusting(closed), closed.url())


# Hosts that do harm


def endless(head: bytes, piece: bytes) -> Reply:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return answer


@pytest.mark.parametrize("head", [reply(length=False), reply(b"10000\r\n", CHUNKED, length=False)])
def test_an_endless_body_ends_at_the_limit(host: Host, head: bytes) -> None:
    piece = b"x" * 65536 + (b"\r\n10000\r\n" if CHUNKED.encode() in head else b"")
    room = Room(300_000)
    assert isinstance(refusal(host, endless(head, piece), room=room), TooLarge)
    assert room.bytes <= room.most


def test_a_length_over_the_limit_is_refused_before_any_of_it_is_read(host: Host) -> None:
    room = Room(300_000)
    assert isinstance(
        refusal(host, endless(reply(b"", "Content-Length: 300001", length=False), b"x"), room=room), TooLarge
    )
    assert not room.reserved


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000),
        endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 1000),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["fields", "field", "continue"],
)
def test_endless_headers_end(host: Host, answer: Reply) -> None:
    assert "of headers" in refusal(host, answer).message


def test_a_body_in_crumbs_ends(host: Host) -> None:
    answer = endless(reply(b"", CHUNKED, length=False), chunks(*[b"x"] * 1000))
    assert "small pieces" in refusal(host, answer).message


def test_endless_trailers_end(host: Host) -> None:
    answer = endless(reply(b"3\r\nabc\r\n0\r\n", CHUNKED, length=False), b"a: b\r\n" * 1000)
    assert isinstance(refusal(host, answer), FetchFailed)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", reply(b"", "Content-Length: 99999", length=False)])
def test_a_host_that_drips_or_hangs_is_given_up(host: Host, head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.settimeout(0.01)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(b"x" if head.endswith(b"\r\n\r\n") else b"")

    error = refusal(host, drip, timeout_s=0.2)
    assert isinstance(error, TimedOut)
    assert "url_timeout_ms" in error.message
    # Its connection is closed.
    assert host.left.acquire(timeout=PATIENCE_S)


def test_a_host_that_hangs_in_tls_is_given_up_and_its_connection_closed() -> None:
    with Host() as host:
        fetcher = Fetcher(
            Allowlist([f"private https://images.test:{host.port}"]), resolver=Names(images_test=["127.0.0.1"]),
            timeout_s=0.2, turns=Turns(4),
        )  # fmt: skip
        with pytest.raises(TimedOut):
            fetch(fetcher, host.url().replace("http:", "https:"))
        assert host.left.acquire(timeout=PATIENCE_S)


# TLS


def secure(host: Host, name: str, tls: ssl.SSLContext | None, tcp: Wiretap | None = None) -> Fetcher:
    entries = [f"https://{name}:{host.port}"]
    names = Names(**{name.replace(".", "_"): ["1.1.1.1"]})
    return Fetcher(
        Allowlist(entries), resolver=names, timeout_s=PATIENCE_S, turns=Turns(4), tls=tls, tcp=tcp or Wiretap()
    )


def trusting_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATE)


def test_tls_is_that_of_the_name_at_whatever_address() -> None:
    with Host({"/": image(b"abc")}, tls=True) as host:
        tcp = Wiretap()
        fetcher = secure(host, "images.example.com", trusting_tls(), tcp)
        assert fetch(fetcher, host.url(name="images.example.com")) == b"abc"
        assert tcp.asked == ["1.1.1.1"]
        assert host.names == ["images.example.com"]
        assert f"Host: images.example.com:{host.port}" in host.heads[0]


def test_a_certificate_of_another_name_is_not_accepted() -> None:
    with Host({"/": image(b"abc")}, tls=True) as host:
        with pytest.raises(FetchFailed, match="TLS"):
            fetch(secure(host, "other.example.com", trusting_tls()), host.url(name="other.example.com"))
        assert not host.heads


def test_a_certificate_that_nobody_vouches_for_is_not_accepted() -> None:
    with Host({"/": image(b"abc")}, tls=True) as host:
        with pytest.raises(FetchFailed, match="TLS"):
            fetch(secure(host, "images.example.com", None), host.url(name="images.example.com"))
        assert not host.heads


def test_tls_is_not_given_up_for_a_redirect() -> None:
    with Host(tls=True) as host, Host({"/": image(b"abc")}) as plain:
        host.answers["/"] = redirect(plain.url(name="images.example.com"))
        entries = [f"images.example.com:{each.port}" for each in (host, plain)]
        fetcher = Fetcher(
            Allowlist(entries), resolver=Names(images_example_com=["1.1.1.1"]), timeout_s=PATIENCE_S, turns=Turns(4),
            tls=trusting_tls(), tcp=Wiretap(),
        )  # fmt: skip
        with pytest.raises(FetchFailed, match="from https to http"):
            fetch(fetcher, host.url(name="images.example.com"))
        assert not plain.heads


# What is told


def test_every_fetch_counts_once_and_only_failures_are_logged_without_what_may_be_signed(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[FetchOutcome] = []
    fetcher = trusting(host, timeout_s=0.5, count=counted.append)
    host.answers |= {"/hang?secret": hang, "/to?secret": redirect("http://169.254.169.254/?secret")}
    caplog.set_level(logging.DEBUG)
    told = ""
    for path, room in (
        ("/none?secret", None), ("/a.png", None), ("/hang?secret", None), ("/to?secret", None), ("/a.png", Room(5)),
    ):  # fmt: skip
        try:
            fetch(fetcher, host.url(path), room)
        except ServiceError as error:
            told += error.message
    assert counted == ["failed", "fetched", "timed_out", "refused", "too_large"]
    own = [record for record in caplog.records if record.name == "service.fetching.fetcher"]
    assert [record.__dict__["fields"]["outcome"] for record in own] == ["failed", "timed_out", "refused", "too_large"]
    assert all(record.__dict__["fields"]["host"] == f"images.test:{host.port}" for record in own)
    assert "secret" not in told + " ".join(f"{record.getMessage()} {record.__dict__['fields']}" for record in own)


def test_a_fetch_that_is_given_up_counts_as_abandoned_and_closes_its_connection(host: Host) -> None:
    counted: list[FetchOutcome] = []
    fetcher = trusting(host, count=counted.append)
    host.answers["/"] = hang

    async def main() -> None:
        task = asyncio.create_task(fetcher.fetch(fetcher.read(host.url("/")), Room(), request="1"))
        await asyncio.to_thread(until, lambda: host.heads)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert counted == ["abandoned"]
    assert host.left.acquire(timeout=PATIENCE_S)


def test_a_listener_hears_who_connects() -> None:
    """The judge of tests/service/fetching/test_guard.py is no deaf one."""
    listener = Listener()
    for address in ("127.0.0.1", "127.1.2.3"):
        socket.create_connection((address, listener.port)).close()
    assert listener.heard() == 2
    assert listener.heard() == 0
    listener.close()
