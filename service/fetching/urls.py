"""What a URL of an image may look like, and its parts. Pure.

One reading, and a narrow one: whatever two programs might read differently is refused, so that what is checked is what
is connected to.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, unquote, urljoin

from service.errors import Invalid
from service.fetching.addresses import Address

PORTS = {"http": 80, "https": 443}

# Signed URLs with a session's token have 2,000 to 3,000 characters.
_MAX_CHARS = 8192
# Without ASCII, the long s of httpſ:// would be a letter like s.
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.ASCII | re.IGNORECASE)
# Control characters, spaces, and what has no place in a URL. A backslash is a slash to browsers, and none to others.
_FOREIGN = re.compile(r"[\x00-\x20\x7f\\<>\"{}|^`]")
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# By WHATWG's URL standard such a last label makes the whole host a number.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_HOST = 253
_DECODINGS = 4
# By slashes, and by the backslashes that some servers take for them. To some, what follows a semicolon is no part of a
# segment.
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])\.{1,2}(?:[;/\\]|$)")
# RFC 3986, and what percent-encoding begins with: everything else is encoded.
_SAFE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in parts that need no further reading.

    host: in lower case; an IPv6 address has no brackets. path, query: in ASCII; the path begins with a slash, and a
    query with a question mark. address: of a host that is one. Nothing prints path and query: they may be signed.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""
    address: Address | None = None

    def __repr__(self) -> str:
        return f"Url({self.scheme}://{self.netloc}/…)"

    def __len__(self) -> int:
        """Bytes of it that a request holds."""
        return len(self.host) + len(self.path) + len(self.query)

    @property
    def netloc(self) -> str:
        """The `Host` of a request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        return self.path + self.query

    def joined(self, reference: str) -> "Url":
        """What `reference` means in a document under this URL. Raises `Invalid`."""
        if _FOREIGN.search(reference):
            raise Invalid("a URL has characters in it that are no part of one")
        return parse_url(urljoin(f"{self.scheme}://{self.netloc}{self.target}", reference))


def is_url(text: str) -> bool:
    """Whether a string is meant as a URL that one could fetch. Looks at its first letters only: uploads are long."""
    return text[:8].lower().startswith(("http://", "https://"))


def parse_url(text: str) -> Url:
    """Raises `Invalid`, which does not repeat the URL: it may be signed."""
    if len(text) > _MAX_CHARS:
        raise Invalid(f"a URL may have {_MAX_CHARS} characters")
    if found := _FOREIGN.search(text):
        raise Invalid(f"character {found.start()} of the URL is {found.group()!a}, which has to be percent-encoded")
    match = _URL.fullmatch(text)
    if match is None:
        raise Invalid("a URL begins with http:// or https://, and no other scheme is fetched")
    scheme, authority, path, query = match[1].lower(), match[2], match[3] or "/", match[4] or ""
    host, port, address = _read_authority(authority)
    if _has_dot_segment(path):
        raise Invalid("the path of a URL has no segments . and .., nor percent-encoded ones; send it without them")
    return Url(scheme, host, port or PORTS[scheme], _encoded(path), _encoded(query), address)


def _read_authority(authority: str) -> tuple[str, int | None, Address | None]:
    """Host, port and, if the host is one, address. Raises `Invalid`."""
    if "@" in authority:
        raise Invalid("a URL has no user and no password; sign it, or send the image itself")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Invalid("the host of a URL is written in ASCII letters, digits, dots and hyphens (xn--… for any other)")
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port < 65536:
        raise Invalid("the port of a URL is a number from 1 to 65535")
    host, address = read_host(f"[{match[1]}]" if match[1] else match[2])
    return host, port, address


def read_host(text: str) -> tuple[str, Address | None]:
    """A host as it is compared, and its address if it is one. Brackets stand around IPv6. Raises `Invalid`."""
    text = text.lower()
    try:
        if text.startswith("["):
            address = IPv6Address(text[1:-1])
            if address.scope_id is not None:
                raise AddressValueError
            return str(address), address
        labels = text.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return text, IPv4Address(text)
    except AddressValueError:
        raise Invalid("an address in a URL is four decimal numbers between dots, or IPv6 between brackets") from None
    if len(text) > _MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise Invalid("the host of a URL is labels between dots, none empty and none over 63 characters")
    return text, None


def _has_dot_segment(path: str) -> bool:
    """Whether a server could take the path for that of another folder, however often it decodes it."""
    for _ in range(_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            return _DOT_SEGMENT.search(path) is not None
        path = decoded
    # Nobody sends such a path in good faith.
    return True


def _encoded(text: str) -> str:
    """Characters beyond ASCII as UTF-8, percent-encoded. Those that are encoded stay as they are."""
    return quote(text, safe=_SAFE)
