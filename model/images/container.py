"""Checks, before any decoder sees a file, how much work and memory its headers ask for.

Decoders believe headers: a few hostile bytes can take all memory, or minutes. This module bounds what decoders of JPEG,
PNG, WebP, GIF and BMP do not bound by the size of the picture. The limits of a worker process bound the other formats.
A file that is merely broken passes, since the decoder refuses it. Knows nothing of Pillow.
"""

import re
from collections.abc import Callable

from model.errors import ImageTooLarge
from model.images.formats import heic

_MAX_SEGMENTS = 8192  # of a JPEG; a profile of 16 MB takes 256
_MAX_SCANS = 100  # of a JPEG; encoders write about ten, and each takes a pass over all pixels
_MAX_RLE = 2 * 1024 * 1024  # bytes, and pixels, of a run-length encoded BMP, which is decoded in Python

_MAGIC: dict[str, re.Pattern[bytes]] = {
    "JPEG": re.compile(rb"[\r\n]*\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF....WEBPVP8[ XL]", re.DOTALL),
    "AVIF": re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"(II|MM)(\0\*|\*\0|\0\+|\+\0)"),
    "JPEG 2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
}
FORMATS: tuple[str, ...] = tuple(_MAGIC)
"""What is read without further packages."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_BARE = {*range(0x01, 0xC0), 0xC8, 0xD8}  # markers without a length
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_EOI, _SOS = 0xD9, 0xDA


def formats() -> tuple[str, ...]:
    """What is read with the packages that are installed."""
    return (*FORMATS, "HEIC") if heic.installed() else FORMATS


def sniff(data: bytes) -> str | None:
    """The one of `formats()` that begins with these bytes; None if there is none."""
    if heic.is_heic(data):
        return "HEIC" if heic.installed() else None
    return next((name for name, magic in _MAGIC.items() if magic.match(data)), None)


def pixels_to_decode(data: bytes, format: str) -> int:
    """Pixels that decoding a file takes, if its container or codestream says so; 0 if only Pillow can say.

    Raises `ImageTooLarge` for a file that takes more time or memory than its picture is worth, `UndecodableImage` for
    one that cannot be checked, and any other exception for a broken one.
    """
    check = _CHECKS.get(format)
    return check(data) if check else 0


def _check_jpeg(data: bytes) -> int:
    at, segments, scans, components, progressive = 2, 0, 0, 0, False
    while (marker := _JPEG_MARKER.search(data, at)) and (code := data[marker.end() - 1]) != _EOI:
        at, segments = marker.end(), segments + 1
        if segments > _MAX_SEGMENTS:
            raise ImageTooLarge(f"this JPEG has too many segments; {_MAX_SEGMENTS:,} are read")
        if code in _JPEG_FRAMES:
            components, progressive = data[at + 7], code in _JPEG_PROGRESSIVE
        elif code == _SOS:
            scans += 1
            if scans > _MAX_SCANS:
                raise ImageTooLarge(f"this JPEG has too many scans; {_MAX_SCANS} are decoded")
            if not progressive and data[at + 2] == components:
                break  # decoders stop after a scan of all components
        if code not in _JPEG_BARE:
            at += int.from_bytes(data[at : at + 2])
    return 0


def _check_webp(data: bytes) -> int:
    """Pixels of the canvas, which the decoder allocates as soon as it opens the file."""
    if data[12:16] != b"VP8X":
        return 0
    width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
    return width * height


def _check_bmp(data: bytes) -> int:
    run_length_coded = data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    if run_length_coded and int.from_bytes(data[14:18], "little") >= 40:
        width, height = (int.from_bytes(data[start : start + 4], "little", signed=True) for start in (18, 22))
        if abs(width * height) > _MAX_RLE or len(data) > _MAX_RLE:
            raise ImageTooLarge(f"this BMP has too many run-length encoded pixels or bytes; {_MAX_RLE:,} are decoded")
    return 0


_CHECKS: dict[str, Callable[[bytes], int]] = {
    "JPEG": _check_jpeg,
    "WebP": _check_webp,
    "BMP": _check_bmp,
}
