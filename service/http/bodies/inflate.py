"""Decodes a body by its `Content-Encoding`, piece by piece. Knows no request and no limit on what a body becomes."""

import zlib
from collections.abc import Iterator

from starlette.datastructures import Headers

from service.errors import BadRequest, UnsupportedCoding

# What zlib's `wbits` says of the format: 32 KiB of window, plus 16 for gzip (RFC 1952). RFC 9110's deflate is zlib's.
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# zlib copies what it has not read of its input.
_INPUT_BYTES, _PIECE_BYTES = 64 * 1024, 128 * 1024
# bgzip writes a member for every 64 KiB. An empty one has 20 bytes and takes 3 µs.
_MAX_MEMBERS = 10_000


def coding_of(headers: Headers) -> str | None:
    """The content coding of a body, None for none. Raises `UnsupportedCoding`."""
    given = ",".join(headers.getlist("content-encoding"))
    codings = [name for part in given.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _WBITS:
        raise UnsupportedCoding(f"Content-Encoding is {given[:100]!r}; bodies may be gzip, deflate or neither")
    return codings[0]


def inflate(data: bytes, coding: str) -> Iterator[bytes]:
    """What `data` becomes, in pieces of at most `_PIECE_BYTES`, some empty. Raises `BadRequest`."""
    view, at, members = memoryview(data), 0, 1
    stream = zlib.decompressobj(_WBITS[coding])
    while at < len(view) or not stream.eof:
        if stream.eof:
            if coding == "deflate":
                raise BadRequest(f"the body is not valid deflate: its data end at byte {at} of {len(view)}")
            if members == _MAX_MEMBERS:
                raise BadRequest(f"the body has more than {_MAX_MEMBERS} {coding} members")
            stream, members = zlib.decompressobj(_WBITS[coding]), members + 1
        given = view[at : at + _INPUT_BYTES]
        try:
            piece = stream.decompress(given, _PIECE_BYTES)
        except zlib.error as error:
            what = str(error).rpartition(": ")[2]
            raise BadRequest(f"the body is not valid {coding}: {what}, near byte {at} of {len(view)}") from None
        taken = len(given) - len(stream.unconsumed_tail) - len(stream.unused_data)
        if not (piece or taken or stream.eof):
            raise BadRequest(f"the body is not valid {coding}: it is cut off after {len(view)} bytes")
        at += taken
        yield piece
