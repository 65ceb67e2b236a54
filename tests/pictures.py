"""Test pictures, as arrays and as files: real photographs, noise, and files that no encoder would write."""

import struct
import zlib
from importlib.resources import files
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "page.png", "rocket.jpg")


def photograph_file(name: str) -> bytes:
    """The bytes of one of `PHOTOGRAPHS`, from scikit-image's wheel."""
    return (files("skimage") / "data" / name).read_bytes()


def small_photograph() -> bytes:
    """A JPEG of 213 × 320 pixels, which takes a quarter of the time of a large one to send and to decode."""
    with Image.open(BytesIO(photograph_file("rocket.jpg"))) as image:
        return save(image.resize((320, 213)), "JPEG", quality=90)


def noise(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Uniform noise, uint8 `[height, width, 3]`: hardly two pixels are alike, so a test sees any that are swapped."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(height: int = 24, width: int = 40, mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    """Blurred noise, which lossy formats and palettes change little."""
    image = Image.fromarray(noise(height, width, seed=seed)).filter(ImageFilter.GaussianBlur(2))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(noise(height, width, seed=seed + 1)[..., 0]))
    return image.convert(mode)


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block.tobytes()


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, pixels: bytes) -> bytes:
    """An RGB PNG with `height` and `width` in its header, and any `pixels`: uncompressed rows with filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_rows(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels as a PNG holds them before compression: each row behind a filter byte of 0."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def with_late_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its pixels."""
    return data[:-12] + png_chunk(kind, content) + data[-12:]


def tiff(height: int, width: int, strip: bytes, **tags: tuple[int, ...]) -> bytes:
    """An uncompressed gray TIFF of one strip, 8 bits a sample; `tags`, by their EXIF names, override its own."""
    entries: dict[str, tuple[int, ...]] = {
        "ImageWidth": (width,),
        "ImageLength": (height,),
        "BitsPerSample": (8,),
        "Compression": (1,),
        "PhotometricInterpretation": (1,),
        "StripOffsets": (8,),
        "SamplesPerPixel": (1,),
        "RowsPerStrip": (height,),
        "StripByteCounts": (len(strip),),
    } | tags
    directory = b""
    for tag, values in sorted((ExifTags.Base[name].value, values) for name, values in entries.items()):
        kind, code = (3, "H") if len(values) > 1 else (4, "I")  # two shorts take the space of one long
        content = struct.pack(f"<{len(values)}{code}", *values)
        directory += struct.pack("<HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    start = struct.pack("<2sHI", b"II", 42, 8 + len(strip))
    return start + strip + struct.pack("<H", len(entries)) + directory + bytes(4)


def random_size(random: Random) -> tuple[int, int]:
    """As `sizes`, for thousands of pictures: hypothesis takes as long to draw one as it takes to prepare it."""
    side, long = (random.randint(1, 160), random.randint(1, 160)), random.randint(1, 2500)
    return random.choice((side, (1, long), (long, 1)))


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Sizes of images, `(height, width)`, of every shape, including strips one pixel wide or high."""
    side = st.integers(1, 160)
    long = st.integers(1, 2500)
    return st.one_of(st.tuples(side, side), st.tuples(st.just(1), long), st.tuples(long, st.just(1)))
