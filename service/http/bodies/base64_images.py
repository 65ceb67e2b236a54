"""Images as text: base64, a base64 data URI as WHATWG's Fetch standard reads it, or the URL of an image.

Base64 is decoded in pieces, because each piece holds the interpreter's lock, which other threads need. A data URI may
also have whitespace and percent-encoding in it, and no padding; bare base64 may only be broken into lines.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from service.errors import BadRequest, Invalid, ServiceError
from service.fetching.urls import Url, is_url
from service.requests.admission.hold import Hold
from service.requests.documents.rows import Document
from service.requests.url_images import UrlImages

# So many take 150 µs, and are decoded where they are. A thread costs more: until it sleeps again, it slows the forward.
_MOST_INLINE = 192 * 1024
# Characters of a piece: a multiple of 4.
_PIECE = 1024**2
# Before the comma of a data URI. URLs lose line ends and tabs wherever they are, and spaces and controls at their ends.
_URI_HEAD = re.compile(r"[\0- ]*data:[^#]*; *base64[ \f]*", re.ASCII | re.IGNORECASE)
_CONTROLS = "".join(map(chr, range(33)))
_WHITESPACE = b"\t\n\f\r "
_FOREIGN = re.compile(r"[^A-Za-z0-9+/\r\n]")
_FOREIGN_IN_URI = re.compile(r"[^A-Za-z0-9+/%\t\n\f\r ]")
# A JPEG in base64 begins with /9j/.
_PATH = re.compile(
    r"(?!/9j/)(file:|[a-z]:[\\/]|~?/|\.{1,2}[\\/])|.*\.(jpe?g|png|webp|avif|gif|bmp|tiff?|jp2|heic)$", re.IGNORECASE
)
_MAX_PATH = 4096
_HINTS = {
    "=": ", which only ends base64",
    "-": ", of the URL-safe alphabet; send the standard one, with + and /",
    "_": ", of the URL-safe alphabet; send the standard one, with + and /",
    " ": " (forms make spaces of +)",
    "%": "; only data URIs are percent-decoded",
}

_IMAGE = 'an image is a base64 string, a data URI, or an object such as {"url": "data:…"}'


async def keep_images(
    hold: Hold,
    encoded: list[Any],
    param: str,
    texts: Sequence[str | list[int]] = (),
    *,
    url_images: UrlImages,
    documents: Sequence[Document] = (),
) -> None:
    """Decodes the images, in a thread if they are large, and gives them to `hold`, beside texts, or in documents, with
    the fault of each that is neither base64 nor a URL that may be fetched. Empties `encoded`.

    param: the field that brought them, which all errors of them name.

    The embedder fetches those of URLs.
    """
    # URLs can be long too.
    size = sum(len(text) for given in encoded if isinstance(text := _text_of(given), str))
    read = partial(read_images, encoded, param, url_images)
    images, urls, faults = await asyncio.to_thread(read) if size > _MOST_INLINE else read()
    hold.image_fields = [param] * len(images)
    hold.keep(images, texts, urls=urls, documents=documents, faults=faults)


def read_images(
    encoded: list[Any], param: str, url_images: UrlImages
) -> tuple[list[bytes], dict[int, Url], dict[int, ServiceError]]:
    """The bytes of each image, none for a URL or a fault, and these by index.

    Empties `encoded` on the way, so that at most one image exists both as text and as bytes.
    """
    images: list[bytes] = []
    urls: dict[int, Url] = {}
    faults: dict[int, ServiceError] = {}
    for index, given in enumerate(encoded):
        image = b""
        try:
            text = _text_of(given)
            if isinstance(text, str) and is_url(text):
                urls[index] = url_images.read(text)
            else:
                image = decode_base64_image(given, index=index, param=param)
        except ServiceError as error:
            error.param, error.index, error.__context__ = param, index, None
            # Its frames would keep the text.
            faults[index] = error.with_traceback(None)
        images.append(image)
        encoded[index] = None
    return images, urls, faults


def decode_base64_image(given: object, *, index: int, param: str) -> bytes:
    """The bytes of a base64 string or data URI, also as the only value of an object, named `url` or `image`.

    Raises `Invalid` or `BadRequest` with the index. The message says what is wrong, and at which character.
    """
    text = _text_of(given)
    if not isinstance(text, str):
        raise Invalid(_IMAGE, param=param, index=index)
    is_uri = text[:5].lower() == "data:" or text[:64].lstrip(_CONTROLS)[:5].lower() == "data:"
    start = _start_of_uri(text) if is_uri else 0
    if start is None:
        fault = "it is a data URI without ;base64 before a comma; send data:image/…;base64,…"
        raise BadRequest(f"the image is not base64: {fault}", param=param, index=index)
    with suppress(ValueError):
        return _decode(text, start)
    try:
        return _decode_uri(text, start) if is_uri else _decode_lines(text)
    except ValueError:
        fault = _fault(text, start, _FOREIGN_IN_URI if is_uri else _FOREIGN)
        raise BadRequest(f"the image is not base64: {fault}", param=param, index=index) from None


def _text_of(given: object) -> object:
    """What stands in an object with one value, named `url` or `image`; anything else as it is."""
    return given.get("url", given.get("image")) if isinstance(given, dict) and len(given) == 1 else given


def _start_of_uri(text: str) -> int | None:
    """Where the base64 of a data URI begins. None if it is not said to be base64."""
    comma = text.find(",")
    head = re.sub(r"[\t\n\r]", "", text[: max(0, comma)])
    return comma + 1 if _URI_HEAD.fullmatch(head) else None


def _decode(text: str, start: int) -> bytes:
    """Decodes strict base64. Raises `ValueError`."""
    decoded = BytesIO()
    for at in range(start, len(text), _PIECE):
        piece = _strict(text[at : at + _PIECE])
        if len(piece) < _PIECE // 4 * 3 and at + _PIECE < len(text):
            raise ValueError  # padding before the end
        decoded.write(piece)
    return decoded.getvalue()


def _strict(text: str) -> bytes:
    try:
        # Three times as fast as `binascii`, and as strict.
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError:
        raise ValueError from None


def _decode_lines(text: str) -> bytes:
    """Decodes base64 that is broken into lines. Raises `ValueError`."""
    decoded, last = _decode_groups(piece.translate(None, b"\r\n") for piece in _pieces(text, 0, len(text)))
    decoded.write(_strict(last.decode()))
    return decoded.getvalue()


def _decode_uri(text: str, start: int) -> bytes:
    """Decodes the data of a data URI: without a fragment, percent-decoded, and forgiving. Raises `ValueError`."""
    fragment = text.find("#", start)
    end = fragment if fragment >= 0 else len(text.rstrip(_CONTROLS))
    decoded, last = _decode_groups(piece.translate(None, _WHITESPACE) for piece in _unquoted(text, start, end))
    if len(last) == 4:
        last = last.removesuffix(b"=").removesuffix(b"=")
    if b"=" in last:
        raise ValueError
    decoded.write(_strict(last.decode() + "=" * (-len(last) % 4)))
    return decoded.getvalue()


def _decode_groups(pieces: Iterable[bytes]) -> tuple[BytesIO, bytes]:
    """Decodes all groups of four characters but the last, and returns that one as it is. Raises `ValueError`."""
    decoded, rest = BytesIO(), b""
    for piece in pieces:
        rest += piece
        whole = max(0, len(rest) - 1) // 4 * 4
        if b"=" in rest[:whole]:
            raise ValueError
        decoded.write(_strict(rest[:whole].decode()))
        rest = rest[whole:]
    return decoded, rest


def _pieces(text: str, start: int, end: int) -> Iterator[bytes]:
    return (text[at : min(at + _PIECE, end)].encode() for at in range(start, end, _PIECE))


def _unquoted(text: str, start: int, end: int) -> Iterator[bytes]:
    """The data of a URI, percent-decoded. Line ends and tabs are no part of a URL, even within an escape."""
    rest = b""
    for piece in _pieces(text, start, end):
        rest += piece.translate(None, b"\t\n\r")
        escape = rest.rfind(b"%", max(0, len(rest) - 2))
        cut = escape if escape >= 0 else len(rest)
        yield unquote_to_bytes(rest[:cut])
        rest = rest[cut:]
    yield unquote_to_bytes(rest)


def _fault(text: str, start: int, foreign: re.Pattern[str]) -> str:
    """What keeps a text from being base64, as a clause."""
    if not start and len(text) <= _MAX_PATH and _PATH.match(text):
        return (
            "it looks like the path of a file, and the server opens none; send what is in the file, in base64, "
            "or as a form with curl -F image=@FILE"
        )
    if text.startswith(("b'", 'b"')):
        return "it looks like the repr of Python's bytes; send what .decode() makes of them"
    if text[start : start + 5].lower() == "data:":
        return "the data of the data URI begins with data: again"
    found = (foreign.search(text, at, at + _PIECE) for at in range(start, len(text), _PIECE))
    match = next(filter(None, found), None)
    if match is None or not text[match.start() :].strip("=" + _CONTROLS):
        return "its length or padding is wrong: base64 is groups of four characters, the last filled up with ="
    fault = f"character {match.start()} is {match.group()!a}"
    return fault + _HINTS.get(match.group(), "")
