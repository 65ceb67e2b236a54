import pytest

from service.errors import Invalid
from service.fetching.allowlist import Allowlist, parse_entry
from service.fetching.urls import parse_url


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("images.test", "http://images.test/a"),
        ("images.test", "https://images.test/a"),
        ("Images.TEST", "https://IMAGES.test/a"),
        ("images.test:8080", "http://images.test:8080/a"),
        ("images.test:443", "http://images.test:443/a"),
        ("https://images.test", "https://images.test:443/"),
        ("*.images.test", "http://a.images.test/"),
        ("*.images.test", "http://a.b.images.test/"),
        ("images.test/photos", "http://images.test/photos"),
        ("images.test/photos", "http://images.test/photos/a?b"),
        ("images.test/photos/", "http://images.test/photos/a"),
        ("images.test/", "http://images.test/a"),
        ("private localhost:9000", "http://localhost:9000/a"),
        ("private  http://10.0.0.7", "http://10.0.0.7/a"),
        ("private [::1]:9000", "http://[::1]:9000/"),
        ("1.1.1.1", "http://1.1.1.1/"),
        ("[2606:4700::1111]", "https://[2606:4700:0:0::1111]/"),
    ],
)
def test_an_entry_lets_its_urls_through(entry: str, url: str) -> None:
    trust = "private" if entry.startswith("private") else "public"
    assert Allowlist([entry]).trust(parse_url(url)) == trust


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("images.test", "http://a.images.test/"),
        ("images.test", "http://images.test.evil.test/"),
        ("images.test", "http://evilimages.test/"),
        ("images.test", "http://images.test:8080/"),
        ("images.test", "https://images.test:80/"),
        ("images.test:8080", "http://images.test/"),
        ("https://images.test", "http://images.test/"),
        ("https://images.test", "http://images.test:443/"),
        ("*.images.test", "http://images.test/"),
        ("*.images.test", "http://evilimages.test/"),
        ("images.test/photos", "http://images.test/"),
        ("images.test/photos", "http://images.test/photos2/a"),
        ("images.test/photos", "http://images.test//photos/a"),
        ("images.test/photos", "http://images.test/Photos/a"),
        ("images.test/photos", "http://images.test/a?/photos/"),
        ("images.test/photos", "http://images.test/%70hotos/a"),
        ("private localhost", "http://127.0.0.1/"),
        ("private 127.0.0.1", "http://127.0.0.2/"),
        ("private 127.0.0.1", "http://[::ffff:127.0.0.1]/"),
    ],
)
def test_an_entry_lets_no_other_url_through(entry: str, url: str) -> None:
    with pytest.raises(Invalid, match="url_allowlist"):
        Allowlist([entry]).trust(parse_url(url))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("", "no host"),
        ("*", "no host"),
        ("*.", "no host"),
        ("a.*.test", "no host"),
        ("ftp://a.test", "no host"),
        ("a.test?b", "no host"),
        ("user@a.test", "no host"),
        ("a b", "no host"),
        ("trusted a.test", "no host"),
        ("a..test", "labels"),
        ("a.test:99999", "port"),
        ("a.test/../b", "segments"),
        ("127.1", "decimal"),
        ("10.0.0.1", "'private 10.0.0.1'"),
        ("http://[::1]:9000", "private"),
        ("private 169.254.169.254", "link-local"),
        ("private 168.63.129.16", "link-local"),
        ("169.254.169.254", "link-local"),
        ("private [fe80::1]", "link-local"),
        ("private *.internal", "named whole"),
        ("*.1.1.1.1", "public domain"),
    ],
)
def test_an_entry_that_is_wrong_or_never_works_is_refused_with_a_reason(entry: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_entry(entry)


def test_without_settings_nothing_is_fetched_and_the_message_names_them() -> None:
    allowlist = Allowlist()
    assert allowlist.allowed == "off"
    for text in ("http://images.test/a", "http://127.0.0.1/", "http://user@a/", "https://"):
        with pytest.raises(Invalid, match=r"url_allowlist, allow_urls.*base64"):
            allowlist.read(text)


@pytest.mark.parametrize(
    "url", ["http://images.test/", "https://images.test/a", "http://images.test:443/", "https://1.1.1.1/"]
)
def test_any_host_is_allowed_on_usual_ports_where_public_ones_are(url: str) -> None:
    assert Allowlist(public=True).trust(parse_url(url)) == "public"


@pytest.mark.parametrize(
    "url", ["http://images.test:8080/", "http://images.test:22/", "http://localhost/", "https://minio/"]
)
def test_other_ports_and_short_names_are_not(url: str) -> None:
    with pytest.raises(Invalid, match="url_allowlist"):
        Allowlist(public=True).trust(parse_url(url))


def test_entries_count_beside_public_hosts() -> None:
    allowlist = Allowlist(["private minio:9000", "images.test:8080"], public=True)
    assert allowlist.allowed == "public"
    assert allowlist.trust(parse_url("http://minio:9000/")) == "private"
    assert allowlist.trust(parse_url("http://images.test:8080/")) == "public"
    assert allowlist.trust(parse_url("http://other.test/")) == "public"


def test_the_trust_of_a_private_entry_goes_before_that_of_a_wider_one() -> None:
    assert Allowlist(["*.test", "private images.test"]).trust(parse_url("http://images.test/")) == "private"
