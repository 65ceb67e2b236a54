"""HEIC: what it is, and the library that reads it if it is installed (`packlight[heif]`).

pillow-heif turns a picture by the file's own `irot` and `imir`, and takes the orientation out of its EXIF block, which
counts for nothing in HEIF (ISO 23008-12).
"""

import importlib.util
import struct
from functools import cache

from model.errors import UndecodableImage

SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
HOW_TO_READ = "HEIC (HEIF) images are read with packlight[heif] installed: pip install 'packlight[heif]'"

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_SHARED_BRANDS = {b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_MAX_KINDS = 64  # of boxes at the top level; a file has about four


@cache
def installed() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def is_heic(data: bytes) -> bool:
    """Whether these bytes begin as a HEIC. With brands of images in general, what is no AVIF is one."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4]), 256)
    brands = {data[start : start + 4] for start in (8, *range(16, end, 4))}
    return bool(brands & (_BRANDS | _SHARED_BRANDS)) and not brands & _AVIF_BRANDS


def openable(data: bytes) -> bytes:
    """The file, which Pillow can open from now on. Refuses one that is cut off: libheif leaves missing tiles gray."""
    register()
    kinds: set[bytes] = set()
    at = 0
    while at + 8 <= len(data) and len(kinds) < _MAX_KINDS:
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        kinds.add(kind)
        at = at + max(size, 8) if size else len(data)  # 0: to the end of the file
    if at > len(data) or b"mdat" not in kinds:
        raise UndecodableImage("this HEIC is truncated, corrupt or of a variant that is not read")
    return data


@cache
def register() -> None:
    """Makes Pillow read HEIC, with one thread an image."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
