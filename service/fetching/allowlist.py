"""The settings that say which URLs are fetched, and whether one of them lets a URL through. Pure.

An entry of `url_allowlist` is a host, and may say more:

    images.example.com              http and https, each on its own port
    *.example.com                   every name below example.com, not example.com itself
    https://images.example.com      https alone
    images.example.com:8080         that port alone
    https://cdn.example.com/photos  paths that are /photos or begin with /photos/
    private http://minio:9000       a host that may also have an address of a private network, or of this machine

Only `private` trusts a name with an address that is not public, so it names one host and takes no `*`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import Invalid
from service.fetching.addresses import is_private, is_public
from service.fetching.failures import no_public_address
from service.fetching.urls import PORTS, Url, parse_url, read_host

# How far a URL is trusted: its host must have public addresses, or may also have private ones.
Trust = Literal["public", "private"]
Allowed = Literal["off", "listed", "public"]

_ENTRY = re.compile(
    r"(?:(private)\s+)?(?:(https?)://)?(\*\.)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(/[^\s?#]*)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """host: of an entry with `*`, what follows it, with the dot. scheme, port: None for any, and for the scheme's own.
    path: without a slash at its end; empty for any."""

    host: str
    scheme: str | None
    port: int | None
    path: str
    trust: Trust

    def matches(self, url: Url) -> bool:
        in_host = url.host == self.host or (self.host.startswith(".") and url.host.endswith(self.host))
        in_path = not self.path or url.path == self.path or url.path.startswith(f"{self.path}/")
        port = self.port or PORTS[url.scheme]
        return in_host and in_path and url.port == port and self.scheme in (None, url.scheme)


def parse_entry(text: str) -> Entry:
    """Raises `ValueError` with a clause that says what is wrong."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no host such as images.example.com, *.example.com or https://example.com/photos")
    private, scheme, star, named, port, path = match.groups()
    try:
        # Read as URLs are: what no URL can be like matches none.
        url = parse_url(f"{scheme or 'http'}://{named}{f':{port}' if port else ''}{path or '/'}")
        host, address = read_host(named)
    except Invalid as error:
        raise ValueError(f"{text!r}: {error.message}") from None
    if star and (address or private):
        raise ValueError(f"{text!r}: * stands for names below a public domain; a private host is named whole")
    if address and not is_public(address):
        if not is_private(address):
            raise ValueError(f"{text!r}: nothing is fetched from that address, which is link-local or reserved")
        if not private:
            raise ValueError(f"{text!r} is no public address; 'private {text}' allows it")
    return Entry(
        host=f".{host}" if star else host,
        scheme=scheme.lower() if scheme else None,
        port=url.port if port else None,
        path=url.path.rstrip("/"),
        trust="private" if private else "public",
    )


class Allowlist:
    """public: any URL of a public host on a usual port is allowed, beside those of the entries."""

    def __init__(self, entries: Sequence[str] = (), *, public: bool = False) -> None:
        """Raises `ValueError` for an entry that is none."""
        self._entries = [parse_entry(entry) for entry in entries]
        self._public = public

    @property
    def allowed(self) -> Allowed:
        if self._public:
            return "public"
        return "listed" if self._entries else "off"

    def read(self, text: str) -> Url:
        """Raises `Invalid` for what is no URL, and for one that no setting allows."""
        if self.allowed == "off":
            raise Invalid(
                "images are not fetched from URLs here (url_allowlist, allow_urls); send base64 or a data URI"
            )
        url = parse_url(text)
        self.trust(url)
        return url

    def names(self, url: Url) -> bool:
        """Whether an entry lets it through, and not only that any public host is allowed."""
        return any(entry.matches(url) for entry in self._entries)

    def trust(self, url: Url) -> Trust:
        """Raises `Invalid` for a URL that no setting allows."""
        trusted = {entry.trust for entry in self._entries if entry.matches(url)}
        if trusted:
            return "private" if "private" in trusted else "public"
        if not self._public:
            raise Invalid("images are fetched from certain URLs only, and this is none of them (url_allowlist)")
        if url.port not in PORTS.values():
            raise Invalid(
                f"images are fetched from the ports 80 and 443, not from {url.port}; url_allowlist can name others"
            )
        if url.address is None and "." not in url.host:
            raise no_public_address()
        return "public"
