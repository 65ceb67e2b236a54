import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid
from service.fetching.urls import is_url, parse_url

REFUSED = [
    "", "http:", "http:/a", "http://", "http:///a", "//host/a", "ftp://host/a", "file:///etc/passwd", "gopher://host/",
    "javascript:alert(1)", "data:image/png;base64,AAAA", "http:images.test/a", "hTTpS:\\\\images.test",
    # credentials
    "http://user@host/a", "http://user:secret@host/a", "http://@host/a", "http://host@127.0.0.1/", "http://a:b@c:d@e/",
    # two readings
    "http://host\\@127.0.0.1/", "http://host\\a", "http://host/\\..\\a", "http://ho st/a", " http://host/a",
    "http://host/a b", "http://host/a\n", "http://host/a\r\nHost: b", "http://host/\x00", "http://host/a\tb", "http://host\t/",
    "http://host/<a>", "http://host/{a}", 'http://host/"a"',
    # hosts
    "http://host./a", "http://.host/a", "http://a..b/", "http://ho%73t/a", "http://h%6fst/", "http://hößt/", "http://ｈost/",
    "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://host:80:90/", "http://host:/a:b@c/" + "é@d", "http://host:0/",
    "http://host:65536/", "http://host:-1/", "http://host:8_0/", "http://host:８０/", "http://host:+80/", "http://[::1/",
    "http://::1/", "http://[::1]a/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[v1.a]/", "http://[]/",
    "http://[::1]:[80]/", "http://[1.2.3.4]/", f"http://{'a' * 64}.test/", f"http://{'a.' * 130}test/", "http://a*b/",
    # numbers that some read as an address
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://127.1/", "http://127.0.1/", "http://0177.0.0.1/",
    "http://127.0.0.01/", "http://127.0.0.0x1/", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://127.0.0.1./",
    "http://017700000001/", "http://0/", "http://a.0x/", "http://a.1/", "http://0x/",
    # the long s and the sign of Kelvin become letters in lower or upper case
    "httpſ://host/", "http://hoſt/", "http://\u212aost/",
    # another folder
    "http://host/..", "http://host/../a", "http://host/a/./b", "http://host/a/%2e%2e/b", "http://host/a/%2E./b",
    "http://host/a/..%2fb", "http://host/a%2f..%2fb", "http://host/a/%252e%252e/b", "http://host/a/..;x=1/b",
    "http://host/a%5c..%5cb",
    "http://host/%" + "25" * 1000 + "2e",
    *(f"http://host/a/%{'25' * times}2e/b" for times in range(6)),
    "http://host/" + "a" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_be_read_in_two_ways_or_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_url(text)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "netloc", "port", "target"),
    [
        ("http://images.test", "images.test", 80, "/"),
        ("HTTPS://Images.TEST/A.jpg", "images.test", 443, "/A.jpg"),
        ("https://images.test:443/a", "images.test", 443, "/a"),
        ("http://images.test:0443/a", "images.test:443", 443, "/a"),
        ("http://images.test?a=b/../c", "images.test", 80, "/?a=b/../c"),
        ("http://images.test/a?b#c?d", "images.test", 80, "/a?b"),
        ("http://images.test/#@127.0.0.1", "images.test", 80, "/"),
        ("http://images.test/a//b/..c/d..", "images.test", 80, "/a//b/..c/d.."),
        ("http://images.test/%20(1)!$&'*+,;=:@~%C3%A4", "images.test", 80, "/%20(1)!$&'*+,;=:@~%C3%A4"),
        ("http://images.test/100%25.jpg", "images.test", 80, "/100%25.jpg"),
        ("http://images.test/a%252520b", "images.test", 80, "/a%252520b"),
        ("http://images.test/ä/日?q=ü", "images.test", 80, "/%C3%A4/%E6%97%A5?q=%C3%BC"),
        ("http://a_b.c-d.test/", "a_b.c-d.test", 80, "/"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80, "/"),
        ("http://127.0.0.1:8080/a", "127.0.0.1:8080", 8080, "/a"),
        ("http://[::FFFF:127.0.0.1]/", "[::ffff:7f00:1]", 80, "/"),
        ("https://[2606:4700:0::1111]:8443/", "[2606:4700::1111]:8443", 8443, "/"),
        ("http://1.example/", "1.example", 80, "/"),
        ("http://0x7f.example/", "0x7f.example", 80, "/"),
    ],
)
def test_a_url_is_read_into_the_parts_that_are_sent(text: str, netloc: str, port: int, target: str) -> None:
    url = parse_url(text)
    assert (url.netloc, url.port, url.target) == (netloc, port, target)
    assert (url.address is None) == any(letter.isalpha() for letter in netloc if netloc[0] != "[")


@given(st.text(max_size=40), st.sampled_from(["http://", "https://", "http://a.test/", "http://a.test?", ""]))
def test_any_text_is_read_or_refused_and_what_is_read_is_read_again_alike(text: str, before: str) -> None:
    try:
        url = parse_url(before + text)
    except Invalid:
        return
    assert parse_url(f"{url.scheme}://{url.netloc}{url.target}") == url
    assert (url.netloc + url.target).isascii()
    assert not set(url.netloc + url.target) & set(" \t\r\n\\#")


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("/b?c", "http://images.test/b?c"),
        ("b", "http://images.test/a/b"),
        ("../b", "http://images.test/b"),
        ("../../../b", "http://images.test/b"),
        ("?d", "http://images.test/a/i.jpg?d"),
        ("http:/b", "http://images.test/b"),
        ("//other.test/b", "http://other.test/b"),
        ("https://other.test/b", "https://other.test/b"),
    ],
)
def test_a_reference_is_read_from_where_it_stands(reference: str, found: str) -> None:
    assert parse_url("http://images.test/a/i.jpg?c").joined(reference) == parse_url(found)


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "ftp://a/",
        "\\\\other.test/b",
        "/a\tb",
        " /b",
        "//user@other.test/",
        "//127.1/",
        "data:,a",
    ],
)
def test_a_reference_is_as_strict_as_a_url(reference: str) -> None:
    with pytest.raises(Invalid):
        parse_url("http://images.test/a").joined(reference)


def test_nothing_prints_what_may_be_signed() -> None:
    url = parse_url("https://images.test/secret/a.jpg?signature=secret")
    assert "secret" not in f"{url} {url!r}"


@pytest.mark.parametrize("text", ["http://", "HTTPS://a", "hTTp://\\"])
def test_what_begins_like_a_url_is_meant_as_one(text: str) -> None:
    assert is_url(text)
    assert not is_url(f"data:,{text}")
