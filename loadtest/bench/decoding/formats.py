"""How long any image holds the event loop: every format at `max_decode_pixels`, and with 10 MB of metadata.

The server's `Decoder` reads each file on a loop of this process, on which a task sleeps for a millisecond again and
again. A row says how much too late it woke at most, in the best round and in the worst. What holds the interpreter's
lock does so in every round; the rest is the operating system's, as `idle` shows. The verdict is `failed` if the best is
over 50 ms.

The last rows say what an image costs in a worker process and in a thread of this one: milliseconds, and milliseconds of
processor time, for its header and its rows.
"""

import asyncio
import io
import os
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from loadtest.bench.servers.processes import cpu_s
from model.child_process import process_tree
from model.errors import ImageError
from model.images.confined import ConfinedDecoder
from model.images.decode import decode_patches, read_header
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, plan_image
from service.requests.decoder import Decoder
from service.settings.settings import Settings

_ROUNDS = 3
_CALLS = 40
_MOST_MS = 50.0
_METADATA_BYTES = 10_000_000
_GEOMETRY = Geometry.for_naflex(16, 256)
_SETTINGS = Settings(decode_threads=2)

# Modes and options of each format at `max_decode_pixels`. `turned` is no option of Pillow's: by EXIF, by a quarter.
_PICTURES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "JPEG": (("L", {}), ("RGB", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"turned": True})),
    "PNG": (
        *((mode, {"compress_level": 1}) for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16")),
        ("P", {"compress_level": 1, "transparency": 3}),
        ("RGB", {"compress_level": 1, "transparency": (1, 2, 3)}),
        ("RGBA", {"compress_level": 1, "turned": True}),
    ),
    "WEBP": (
        *((mode, {"method": 0}) for mode in ("RGB", "RGBA")),
        ("RGBA", {"method": 0, "lossless": True, "quality": 0}),
        ("RGB", {"method": 0, "turned": True}),
    ),
    "AVIF": (*((mode, {"speed": 10}) for mode in ("L", "RGB", "RGBA")), ("RGB", {"speed": 10, "turned": True})),
    "GIF": (("L", {}), ("P", {}), ("P", {"transparency": 3})),
    "TIFF": (
        *((mode, {"compression": "tiff_adobe_deflate"}) for mode in ("1", "L", "I;16", "RGB", "RGBA", "CMYK")),
        ("RGB", {"compression": "tiff_lzw", "turned": True}),
    ),
    "JPEG2000": tuple((mode, {"irreversible": True, "quality_layers": [40]}) for mode in ("L", "RGB", "RGBA")),
    "BMP": (("1", {}),),
}


def measure() -> list[dict[str, object]]:
    """Milliseconds by which the loop was late for each file, then milliseconds an image, in a process and a thread."""
    return [*asyncio.run(_gaps()), *_costs()]


async def _gaps() -> list[dict[str, object]]:
    decoder = Decoder.of(_SETTINGS, _GEOMETRY)
    rows = [await _row("idle", lambda: asyncio.sleep(0.3))]
    for name, data in _files():
        megabytes = round(len(data) / 1e6, 1)
        try:
            await _read(decoder, data)  # the first starts a process
        except ImageError as error:
            rows.append({"case": name, "megabytes": megabytes, "verdict": f"refused: {error}"})
            continue
        row = await _row(name, lambda data=data: _read(decoder, data))  # type: ignore[misc]
        rows.append(row | {"megabytes": megabytes})
    decoder.close()
    return rows


async def _row(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> dict[str, object]:
    gaps_ms, seconds = [], []
    for _ in range(_ROUNDS):
        began_s = time.perf_counter()
        gaps_ms.append(await _gap_ms(work()))
        seconds.append(time.perf_counter() - began_s)
    gap_ms = min(gaps_ms)
    return {
        "case": name,
        "took_ms": round(statistics.median(seconds) * 1e3, 1),
        "longest_gap_ms": round(gap_ms, 1),
        "worst_ms": round(max(gaps_ms), 1),
        "verdict": "failed" if gap_ms > _MOST_MS else "ok",
    }


async def _gap_ms(work: Coroutine[Any, Any, None]) -> float:
    task = asyncio.create_task(work)
    longest_s = 0.0
    while not task.done():
        asleep_s = time.perf_counter()
        await asyncio.sleep(0.001)
        longest_s = max(longest_s, time.perf_counter() - asleep_s - 0.001)
    await task
    return longest_s * 1e3


async def _read(decoder: Decoder, data: bytes) -> None:
    header = await decoder.header(data)
    await decoder.patches(data, _plan(header.size), "exact")


def _plan(size: tuple[int, int]) -> ImagePlan:
    return plan_image(size, geometry=_GEOMETRY, budget=Budget.of_tokens(256, 16), strategy="naflex")


def _files() -> Iterator[tuple[str, bytes]]:
    height = 6400
    width = _SETTINGS.max_decode_pixels // height
    for format, kinds in _PICTURES.items():
        for mode, options in kinds:
            words = [format, mode, *(name for name in options if name in ("turned", "progressive", "transparency"))]
            yield " ".join(words), _saved(_picture(height, width, mode), format, **options)
    # As many pixels as one upload brings.
    yield "BMP RGB", _saved(_picture(3200, 3400, "RGB"), "BMP")
    yield "BMP P", _saved(_picture(5600, 5900, "P"), "BMP")
    for name, data in _with_metadata():
        yield f"{name} of {_METADATA_BYTES / 1e6:.0f} MB", data


def _picture(height: int, width: int, mode: str) -> Image.Image:
    """Even gradients and rows of noise: a file under the limit of an upload, all of whose pixels must be decoded."""
    noise = np.random.default_rng(0).integers(0, 40, (height // 8, 1, 3), dtype=np.uint8).repeat(8, axis=0)
    image = Image.fromarray(np.linspace(0, 215, width).astype(np.uint8)[None, :, None] + noise)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        alpha, image = image.getchannel(1), image.convert(mode[:-1])
        image.putalpha(alpha)
        return image
    return image.convert("L").convert("P") if mode == "P" else image.convert(mode)


def _saved(image: Image.Image, format: str, *, turned: bool = False, **options: Any) -> bytes:
    if turned:
        options["exif"] = Image.Exif()
        options["exif"][0x112] = 6
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _with_metadata() -> Iterator[tuple[str, bytes]]:
    """A small picture with EXIF of 4,000 tags, a profile, XMP without an orientation, or a text."""
    small = Image.new("RGB", (40, 24), (200, 30, 60))
    profile = np.random.default_rng(0).bytes(_METADATA_BYTES)
    xmp = b"<x:xmpmeta>" + b"tiff:Orientatio " * (_METADATA_BYTES // 16) + b"</x:xmpmeta>"
    exif = _exif()
    jpeg, text = _saved(small, "JPEG"), PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = xmp
    yield "JPEG exif", _jpeg_with(jpeg, 0xE1, b"Exif\0\0", exif)
    yield "JPEG xmp", _jpeg_with(jpeg, 0xE1, b"http://ns.adobe.com/xap/1.0/\0", xmp)
    yield "JPEG photoshop", _jpeg_with(jpeg, 0xED, b"Photoshop 3.0\0", b"8BIM\4\4\0\0\0\0\0\2ab" * (len(xmp) // 14))
    yield "JPEG comment", _jpeg_with(jpeg, 0xFE, b"", xmp)
    yield "PNG exif", _png_with(small, b"eXIf", exif)
    yield "PNG xmp", _saved(small, "PNG", pnginfo=text)
    yield "PNG packed xmp", _png_with(small, b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(xmp))
    yield "WEBP exif", _saved(small, "WEBP", exif=exif)
    for format in ("WEBP", "AVIF"):
        yield f"{format} xmp", _saved(small, format, xmp=xmp)
    for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        yield f"{format} icc", _saved(small, format, icc_profile=profile)
    yield "TIFF xmp", _saved(small, "TIFF", tiffinfo=tags)
    yield "JPEG2000 xmp", _jp2_with(_saved(small, "JPEG2000"), xmp)


def _exif() -> bytes:
    tags = b"".join(struct.pack(">HHII", tag, 2, 2500, 8) for tag in range(1, 4001))
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 4000) + tags + bytes(4)
    return block + b"a" * (_METADATA_BYTES - len(block))


def _jpeg_with(jpeg: bytes, marker: int, prefix: bytes, body: bytes) -> bytes:
    pieces = (prefix + body[start : start + 65_000] for start in range(0, len(body), 65_000))
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(piece) + 2) + piece for piece in pieces)
    return jpeg[:2] + segments + jpeg[2:]


def _png_with(image: Image.Image, kind: bytes, body: bytes) -> bytes:
    data = _saved(image, "PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


def _jp2_with(data: bytes, xmp: bytes) -> bytes:
    """With a box of XMP before the codestream, as ISO 16684-1 places it."""
    at = data.index(b"jp2c") - 4
    identity = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    return data[:at] + struct.pack(">I4s", 24 + len(xmp), b"uuid") + identity + xmp + data[at:]


def _costs() -> list[dict[str, object]]:
    confined = ConfinedDecoder(processes=1, max_decode_pixels=_SETTINGS.max_decode_pixels)
    kinds = [("AVIF", 64), ("AVIF", 1000), ("JPEG2000", 64), ("JPEG2000", 1000), ("JPEG", 4000), ("PNG", 4000)]
    with ThreadPoolExecutor(1) as thread:
        rows = [
            _cost(confined, thread, f"{format} of {side}×{side}", _saved(_picture(side, side, "RGB"), format))
            for format, side in [*kinds, ("WEBP", 4000)]
        ]
    confined.close()
    return rows


def _cost(confined: ConfinedDecoder, thread: ThreadPoolExecutor, name: str, data: bytes) -> dict[str, object]:
    """Calls take turns in a process and in the thread alone."""
    pixels = _SETTINGS.max_decode_pixels

    def in_process() -> None:
        plan = _plan(confined.read_header(data).size)
        confined.decode_patches(data, plan, geometry=_GEOMETRY, decode="exact")

    def in_thread() -> None:
        plan = _plan(read_header(data, max_decode_pixels=pixels).size)
        decode_patches(data, plan, geometry=_GEOMETRY, max_decode_pixels=pixels)

    row: dict[str, object] = {"case": name}
    took_s: dict[Callable[[], None], list[float]] = {in_process: [], in_thread: []}
    spent_s = dict.fromkeys(took_s, 0.0)
    for turn in range(1 + _CALLS):
        for way, seconds in took_s.items():
            spent_before_s, began_s = cpu_s(process_tree(os.getpid())), time.perf_counter()
            thread.submit(way).result()
            if turn:  # the first loads what it needs
                seconds.append(time.perf_counter() - began_s)
                spent_s[way] += cpu_s(process_tree(os.getpid())) - spent_before_s
    for way, seconds in took_s.items():
        row[f"{way.__name__}_ms"] = round(statistics.median(seconds) * 1e3, 2)
        row[f"{way.__name__}_cpu_ms"] = round(spent_s[way] / _CALLS * 1e3, 1)
    return row
