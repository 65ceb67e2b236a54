"""The oracles: for patch rows, Transformers' Pillow processor; for orientation and colour, Pillow and Transformers."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageFile, ImageOps, features
from transformers.image_transforms import convert_to_rgb
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from model.images.decode import FORMATS, ImageHeader, decode_patches, decode_rgb, read_header
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import plan_image
from tests.examples import many
from tests.pictures import (
    PHOTOGRAPHS,
    exif,
    noise,
    photograph_file,
    picture,
    png,
    png_rows,
    save,
    sizes,
    tiff,
    with_late_chunk,
    xmp,
)

LIMIT = 50_000_000
NAFLEX = Geometry.for_naflex(16, 256)

# A small file of every format in most variants: our name of the format, Pillow's name, options.
ENCODINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "JPEG", {"quality": 95, "subsampling": 0}),
    "progressive jpeg": ("JPEG", "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    "mpo": ("JPEG", "MPO", {"quality": 95, "save_all": True, "append_images": [picture(seed=9)]}),
    "png": ("PNG", "PNG", {}),
    "lossy webp": ("WebP", "WEBP", {"quality": 95}),
    "lossless webp": ("WebP", "WEBP", {"lossless": True}),
    "avif": ("AVIF", "AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    "gif": ("GIF", "GIF", {}),
    "bmp": ("BMP", "BMP", {}),
    "tiff": ("TIFF", "TIFF", {}),
    "deflated tiff": ("TIFF", "TIFF", {"compression": "tiff_deflate"}),
    "jp2": ("JPEG 2000", "JPEG2000", {}),
    "j2k": ("JPEG 2000", "JPEG2000", {"no_jp2": True}),
}
LOSSLESS = ("png", "lossless webp", "bmp", "tiff", "deflated tiff", "jp2", "j2k")
# Pillow's names of formats with an orientation. A turned JPEG is compared with a JPEG.
TURNABLE = ("JPEG", "PNG", "late PNG", "WEBP", "AVIF", "TIFF")


def encoded(name: str, image: Image.Image | None = None) -> bytes:
    _, plugin, options = ENCODINGS[name]
    return save(image or picture(), plugin, **options)


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode_rgb(data, max_decode_pixels=LIMIT))


def reference_rgb(data: bytes) -> NDArray[np.uint8]:
    """What Transformers makes of a file: Pillow turns it upright, then Transformers converts it."""
    with Image.open(BytesIO(data)) as image:
        pixels: NDArray[np.uint8] = convert_to_rgb(ImageOps.exif_transpose(image), return_numpy=True)
    return pixels


def reference_rows(pixels: NDArray[np.uint8], *, patch_size: int, token_cap: int) -> NDArray[np.uint8]:
    """The rows of the reference processor, without rescaling, normalising and padding."""
    processor = Siglip2ImageProcessorPil(
        patch_size=patch_size, max_num_patches=token_cap, do_rescale=False, do_normalize=False
    )
    batch = processor.preprocess(Image.fromarray(pixels), return_tensors=None)
    rows: NDArray[np.uint8] = batch["pixel_values"][0][batch["pixel_attention_mask"][0] == 1]
    return rows


def patches(
    data: bytes, *, patch_size: int = 16, token_cap: int = 256, strategy: Strategy = "naflex"
) -> NDArray[np.uint8]:
    """Reads the header, plans, and cuts the rows."""
    header = read_header(data, max_decode_pixels=LIMIT)
    geometry = Geometry.for_naflex(patch_size, 256)
    budget = Budget.of_tokens(token_cap, patch_size)
    plan = plan_image(header.size, geometry=geometry, budget=budget, strategy=strategy)
    _, rows = decode_patches(data, plan, geometry=geometry, max_decode_pixels=LIMIT)
    return rows


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels turned as EXIF says, computed without Pillow."""
    turns: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda stored: stored,
        2: lambda stored: stored[:, ::-1],
        3: lambda stored: stored[::-1, ::-1],
        4: lambda stored: stored[::-1],
        5: lambda stored: stored.swapaxes(0, 1),
        6: lambda stored: np.rot90(stored, -1),
        7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
        8: lambda stored: np.rot90(stored, 1),
    }
    return turns[orientation](pixels)


def turned_file(kind: str, orientation: int) -> bytes:
    if kind == "late PNG":
        return with_late_chunk(save(picture(), "PNG"), b"eXIf", exif(orientation).removeprefix(b"Exif\0\0"))
    return save(picture(), kind, exif=exif(orientation))


def refusal(data: bytes, *, read: Callable[..., object] = decode_rgb, max_decode_pixels: int = LIMIT) -> ImageError:
    with pytest.raises(ImageError) as raised:
        read(data, max_decode_pixels=max_decode_pixels)
    return raised.value


# Patch rows


@many(300)
@given(
    size=sizes(),
    token_cap=st.one_of(st.integers(1, 64), st.integers(1, 1024)),
    patch_size=st.sampled_from([16, 14, 7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_patch_rows_equal_the_reference_processor_bit_for_bit(size, token_cap, patch_size, seed):
    pixels = noise(*size, seed=seed)
    rows = patches(save(Image.fromarray(pixels), "BMP"), patch_size=patch_size, token_cap=token_cap)
    np.testing.assert_array_equal(rows, reference_rows(pixels, patch_size=patch_size, token_cap=token_cap))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_patch_rows_of_a_photograph_equal_the_reference_processor_bit_for_bit(name):
    data = photograph_file(name)
    pixels = reference_rgb(data)
    for token_cap in (128, 256, 576, 1024):
        rows = patches(data, token_cap=token_cap)
        np.testing.assert_array_equal(rows, reference_rows(pixels, patch_size=16, token_cap=token_cap))


def test_square_is_a_plain_resize_to_a_square():
    data = photograph_file("rocket.jpg")
    resized = np.asarray(Image.open(BytesIO(data)).resize((10 * 16, 10 * 16), Image.Resampling.BILINEAR))
    rows = patches(data, token_cap=107, strategy="square").reshape(10, 10, 16, 16, 3)
    np.testing.assert_array_equal(rows.swapaxes(1, 2).reshape(160, 160, 3), resized)


def test_a_strip_of_one_by_ten_thousand_pixels_is_one_row_of_patches():
    data = save(Image.fromarray(noise(1, 10_000)), "PNG")
    assert read_header(data, max_decode_pixels=LIMIT).size == (1, 10_000)
    assert patches(data).shape == (256, 768)


def test_a_picture_of_another_size_than_planned_is_refused():
    plan = plan_image((24, 41), geometry=NAFLEX, budget=Budget.of_tokens(16, 16), strategy="naflex")
    with pytest.raises(UndecodableImage, match="24×40 pixels; its header announced 24×41"):
        decode_patches(encoded("png"), plan, geometry=NAFLEX, max_decode_pixels=LIMIT)


def test_many_threads_decode_as_one():
    files = [encoded(name) for name in ENCODINGS] * 8
    with ThreadPoolExecutor(8) as pool:
        for data, rows in zip(files, pool.map(patches, files), strict=True):
            np.testing.assert_array_equal(rows, patches(data))


# Formats


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_format_is_read(name):
    data = encoded(name)
    assert read_header(data, max_decode_pixels=LIMIT) == ImageHeader(ENCODINGS[name][0], (24, 40))
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))
    tolerance = 0 if name in LOSSLESS else 60 if name == "gif" else 24
    assert np.abs(decoded(data).astype(int) - np.asarray(picture())).max() <= tolerance


def test_every_format_has_a_file_in_these_tests():
    assert {name for name, _, _ in ENCODINGS.values()} == set(FORMATS)
    assert all(features.check(codec) for codec in ("jpg", "jpg_2000", "zlib", "webp", "avif", "libtiff"))


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_header_is_read_without_decoding_a_pixel(name, monkeypatch):
    data = encoded(name)

    def refuse(image: Image.Image) -> None:
        pytest.fail("a pixel was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)
    assert read_header(data, max_decode_pixels=LIMIT).size == (24, 40)


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "avif", "gif", "bmp", "jp2", "j2k"])
def test_a_header_is_read_from_a_file_cut_before_its_pixels(name):
    data = encoded(name)
    headers = []
    for length in range(len(data)):
        try:
            headers.append((length, read_header(data[:length], max_decode_pixels=LIMIT)))
        except ImageError:
            continue
    assert {header.size for _, header in headers} == {(24, 40)}
    with pytest.raises(UndecodableImage):
        decode_rgb(data[: headers[0][0]], max_decode_pixels=LIMIT)


@pytest.mark.parametrize(
    ("format", "options"), [("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("GIF", {})], ids=str
)
def test_the_first_frame_of_many_is_taken(format, options):
    first, later = picture(), [picture(seed=seed) for seed in (1, 2)]
    data = save(first, format, save_all=True, append_images=later, **options)
    assert len(data) > 1.5 * len(save(first, format, **options))
    np.testing.assert_array_equal(decoded(data), decoded(save(first, format, **options)))


def test_frames_behind_the_first_are_never_looked_at(monkeypatch):
    still = save(picture(), "GIF")
    animation = still.removesuffix(b";") + 10_000 * b",\xff\xff garbage \xff"

    def refuse(*_: object) -> None:
        pytest.fail("frames were walked")

    for name in ("seek", "n_frames", "is_animated"):
        monkeypatch.setattr(GifImagePlugin.GifImageFile, name, property(refuse))
    assert read_header(animation, max_decode_pixels=LIMIT).size == (24, 40)
    np.testing.assert_array_equal(decoded(animation), decoded(still))


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TURNABLE)
def test_a_picture_is_turned_upright(kind, orientation):
    data = turned_file(kind, orientation)
    stored = decoded(save(picture(), kind.removeprefix("late ")))
    np.testing.assert_array_equal(decoded(data), turned(stored, orientation))
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [kind for kind in TURNABLE if kind != "late PNG"])
def test_a_header_gives_the_size_of_the_picture_upright(kind, orientation):
    data = turned_file(kind, orientation)
    assert read_header(data, max_decode_pixels=LIMIT).size == ((24, 40) if orientation < 5 else (40, 24))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_nothing(format):
    options = {"tiffinfo": {700: xmp(6)}} if format == "TIFF" else {"xmp": xmp(6)}
    data = save(picture(), format, **options)
    np.testing.assert_array_equal(decoded(data), decoded(save(picture(), format)))
    assert read_header(data, max_decode_pixels=LIMIT).size == (24, 40)


def test_an_orientation_behind_the_pixels_swaps_the_plan_and_leaves_the_tokens():
    data = turned_file("late PNG", 6)
    plan = plan_image(
        read_header(data, max_decode_pixels=LIMIT).size,
        geometry=NAFLEX,
        budget=Budget.of_tokens(100, 16),
        strategy="naflex",
    )
    new_plan, rows = decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=LIMIT)
    assert (plan.size, new_plan.size) == ((24, 40), (40, 24))
    assert new_plan == plan_image((40, 24), geometry=NAFLEX, budget=Budget.of_tokens(100, 16), strategy="naflex")
    assert new_plan.tokens == plan.tokens == len(rows)
    np.testing.assert_array_equal(rows, reference_rows(reference_rgb(data), patch_size=16, token_cap=100))


@pytest.mark.parametrize("strategy", ["native", "square", "anyres"])
def test_an_orientation_behind_the_pixels_leaves_the_tokens_under_every_strategy(strategy):
    late, upright = turned_file("late PNG", 6), save(picture().transpose(Image.Transpose.ROTATE_270), "PNG")
    budget = Budget.of_tokens(2000, 16)
    plan, expected = (
        plan_image(read_header(data, max_decode_pixels=LIMIT).size, geometry=NAFLEX, budget=budget, strategy=strategy)
        for data in (late, upright)
    )
    new_plan, rows = decode_patches(late, plan, geometry=NAFLEX, max_decode_pixels=LIMIT)
    assert new_plan == expected
    assert new_plan.tokens == plan.tokens
    _, expected_rows = decode_patches(upright, expected, geometry=NAFLEX, max_decode_pixels=LIMIT)
    np.testing.assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize("orientation", [1, 3])
def test_an_orientation_behind_the_pixels_that_swaps_no_sides_leaves_the_plan(orientation):
    plan = plan_image((24, 40), geometry=NAFLEX, budget=Budget.of_tokens(100, 16), strategy="naflex")
    data = turned_file("late PNG", orientation)
    new_plan, _ = decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=LIMIT)
    assert new_plan is plan


@pytest.mark.filterwarnings("ignore")  # warnings are errors in tests only; here they would hide what follows
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@many(200)
@given(
    changes=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 255)), min_size=1, max_size=8), cut=st.integers(0, 26)
)
def test_a_broken_exif_block_never_fails_a_picture(format, changes, cut):
    block = bytearray(exif(6).removeprefix(b"Exif\0\0"))
    for position, value in changes:
        block[position % len(block)] = value
    data = save(picture(), format, exif=b"Exif\0\0" + bytes(block[:cut]))
    header = read_header(data, max_decode_pixels=LIMIT)
    assert header.size == decoded(data).shape[:2]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_an_exif_block_of_garbage_turns_nothing(format):
    data = save(picture(), format, exif=b"Exif\0\0garbage" + bytes(40))
    np.testing.assert_array_equal(decoded(data), decoded(save(picture(), format)))


# Colour


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[(mode, "TIFF") for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")],
        *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK")],
        *[(mode, "WEBP") for mode in ("RGB", "RGBA")],
        *[(mode, "AVIF") for mode in ("RGB", "RGBA")],
        *[(mode, "GIF") for mode in ("1", "L", "P", "RGBA")],
        *[(mode, "BMP") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "JPEG2000") for mode in ("L", "LA", "RGB", "RGBA")],
    ],
)
def test_every_mode_becomes_rgb_as_in_transformers(mode, format):
    data = save(picture(mode=mode), format)
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))


def test_every_colour_under_every_alpha_is_laid_on_white_as_in_transformers():
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    data = save(Image.fromarray(np.stack([colour, colour[:, ::-1], colour.T, alpha], axis=-1)), "PNG")
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))
    assert (decoded(data)[0] == 255).all()


def test_premultiplied_gray_is_divided_by_its_alpha():
    data = tiff(1, 3, bytes([100, 255, 50, 128, 0, 0]), BitsPerSample=(8, 8), SamplesPerPixel=(2,), ExtraSamples=(1,))
    assert Image.open(BytesIO(data)).mode == "La"
    np.testing.assert_allclose(decoded(data)[0, :, 0], [100, 50 + 127, 255], atol=1)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 250, 10))], ids=["one index", "alpha per index"])
def test_a_palette_with_transparency_is_laid_on_white(transparency):
    image = picture().quantize(25)
    data = save(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))
    index = transparency if isinstance(transparency, int) else 0
    assert (decoded(data)[np.asarray(image) == index] == 255).all()
    assert (decoded(data) != np.asarray(image.convert("RGB"))).any()


def test_a_colour_key_is_laid_on_white():
    pixels = noise(8, 8)
    data = save(Image.fromarray(pixels), "PNG", transparency=tuple(pixels[2, 5].tolist()))
    pixels[2, 5] = 255
    np.testing.assert_array_equal(decoded(data), pixels)


def test_a_cmyk_jpeg_of_adobe_is_not_inverted():
    image = Image.new("CMYK", (16, 16), (0, 200, 220, 10))  # a red
    data = save(image, "JPEG", quality=95)
    assert b"Adobe" in data
    np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(BytesIO(data)).convert("RGB")))
    np.testing.assert_allclose(decoded(data), np.asarray(image.convert("RGB")), atol=6)


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("I;16", "PNG", {}),
        ("I;16", "JPEG2000", {}),
        *[(mode, "TIFF", {}) for mode in ("I;16", "I;16B", "I")],
        *[(mode, "TIFF", {"compression": "tiff_deflate"}) for mode in ("I;16", "I;16B", "I")],
    ],
    ids=str,
)
def test_gray_of_16_bits_is_read_by_its_high_byte(mode, format, options):
    samples = np.random.default_rng(0).integers(0, 65536, (24, 40), dtype=np.uint16)
    stored = {"I;16": "<u2", "I;16B": ">u2", "I": "i4"}[mode]
    data = save(Image.frombytes(mode, (40, 24), samples.astype(stored).tobytes()), format, **options)
    np.testing.assert_array_equal(decoded(data), np.repeat(samples[..., None] >> 8, 3, axis=-1))


def test_gray_of_12_bits_is_read_by_its_highest_8():
    strip = int("".join(f"{sample:012b}" for sample in (0, 16, 2048, 4095)), 2).to_bytes(6)
    assert decoded(tiff(1, 4, strip, BitsPerSample=(12,)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_key_among_16_bit_grays_is_laid_on_white():
    samples = np.array([[0x1234, 0x1235, 0x1234]], dtype=np.uint16)
    data = save(Image.fromarray(samples), "PNG", transparency=0x1234)
    assert decoded(data)[0, :, 0].tolist() == [255, 0x12, 255]


def test_float_samples_are_refused_by_name_before_they_are_decoded():
    error = refusal(save(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), read=read_header)
    assert isinstance(error, UnsupportedFormat)
    assert "floating-point" in str(error)


@pytest.mark.parametrize("sample", [-1, 65536])
def test_samples_of_more_than_16_bits_are_refused_by_name(sample):
    data = save(Image.fromarray(np.array([[0, sample]], np.int32)), "TIFF")
    assert isinstance(refusal(data), UnsupportedFormat)
    assert "16 bits" in str(refusal(data))


# What is refused


@pytest.mark.parametrize(
    "data",
    [b"a photograph.jpg that is really a text file\n" * 9, b"<svg></svg>", b"%PDF-1.7", b"\0" * 64, b"\xff"],
    ids=["text", "svg", "pdf", "zeros", "one byte"],
)
def test_what_is_no_image_is_refused_with_the_formats_that_are_read(data):
    error = refusal(data)
    assert isinstance(error, UnsupportedFormat)
    assert all(name in str(error) for name in FORMATS)


def test_no_bytes_are_refused_as_empty():
    assert isinstance(refusal(b""), UnsupportedFormat)
    assert "empty" in str(refusal(b""))


@pytest.mark.parametrize("format", ["ICO", "PPM", "TGA", "PCX"])
def test_a_format_that_pillow_reads_and_we_do_not_is_refused(format):
    data = save(picture(16, 16), format)
    Image.open(BytesIO(data)).load()
    assert isinstance(refusal(data), UnsupportedFormat)


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"hevx\0\0\0\0msf1hevx"])
def test_heic_is_refused_by_name_with_what_to_do_if_its_package_is_not_installed(brands, without_heif):
    error = refusal(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(200))
    assert isinstance(error, UnsupportedFormat)
    assert "HEIC (HEIF) images are read with packlight[heif] installed: pip install 'packlight[heif]'" in str(error)
    assert "JPEG" in str(error)


@pytest.mark.parametrize("major", [b"avif", b"mif1"])
def test_a_broken_avif_is_not_taken_for_heic(major):
    error = refusal(encoded("avif")[:100].replace(b"ftypavif", b"ftyp" + major))
    assert isinstance(error, UndecodableImage)
    assert "AVIF" in str(error)


def test_a_film_is_no_image():
    error = refusal(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(200))
    assert isinstance(error, UnsupportedFormat)
    assert "not an image" in str(error)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_truncated_file_is_refused_by_the_name_of_its_format(name):
    data = encoded(name)
    # An MPO is complete with its first picture, about half of the file. A JPEG may lack its last row of blocks.
    for share in (0.1, 0.25, 0.4) if ENCODINGS[name][0] == "JPEG" else (0.1, 0.3, 0.5, 0.7, 0.95):
        error = refusal(data[: int(share * len(data))])
        assert isinstance(error, UndecodableImage)
        assert ENCODINGS[name][0] in str(error)


def test_a_large_jpeg_is_refused_wherever_it_is_cut():
    data = photograph_file("rocket.jpg")
    for length in (200, 1000, len(data) // 2, len(data) - 5000):
        assert isinstance(refusal(data[:length]), UndecodableImage)


@pytest.mark.parametrize("width", [20, 80])
def test_a_png_whose_header_lies_about_its_width_is_refused(width):
    assert isinstance(refusal(png(24, width, png_rows(np.asarray(picture())))), UndecodableImage)


def test_rows_that_a_png_promises_and_lacks_are_black_as_in_the_reference():
    data = png(30, 40, png_rows(np.asarray(picture())))
    np.testing.assert_array_equal(decoded(data), reference_rgb(data))
    np.testing.assert_array_equal(decoded(data), np.pad(np.asarray(picture()), ((0, 6), (0, 0), (0, 0))))


def test_a_png_that_inflates_beyond_its_header_gives_the_pixels_of_its_header():
    data = png(24, 40, png_rows(np.asarray(picture())) + bytes(100_000_000))
    assert len(data) < 200_000
    np.testing.assert_array_equal(decoded(data), np.asarray(picture()))


@pytest.mark.parametrize("height", [0, 24])
def test_a_picture_without_pixels_is_refused(height):
    error = refusal(png(height, 24 - height, b"\0"))
    assert isinstance(error, UndecodableImage)
    assert "without pixels" in str(error)


@pytest.mark.parametrize("read", [read_header, decode_rgb])
def test_a_picture_over_the_limit_is_refused_with_count_limit_and_setting(read):
    error = refusal(png(9_000, 9_000, b""), read=read, max_decode_pixels=80_000_000)
    assert isinstance(error, ImageTooLarge)
    assert all(part in str(error) for part in ("81,000,000", "80,000,000", "max_decode_pixels"))


def test_the_limit_itself_is_allowed():
    data = encoded("png")
    assert read_header(data, max_decode_pixels=24 * 40).size == (24, 40)
    assert isinstance(refusal(data, read=read_header, max_decode_pixels=24 * 40 - 1), ImageTooLarge)


@pytest.mark.parametrize("limit", [LIMIT, 10**12])
def test_a_png_of_30000_by_30000_pixels_is_refused_by_its_header_whatever_the_limit(limit):
    error = refusal(png(30_000, 30_000, b"\0"), read=read_header, max_decode_pixels=limit)
    assert isinstance(error, ImageTooLarge)
    assert f"max_decode_pixels is {limit:,}" in str(error)


def test_a_size_that_pillow_warns_of_is_refused_where_warnings_are_errors(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    assert isinstance(refusal(encoded("png"), read=read_header), ImageTooLarge)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_size_that_pillow_warns_of_is_read_where_the_limit_allows_it(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    assert read_header(encoded("png"), max_decode_pixels=24 * 40).size == (24, 40)


def test_a_small_tiff_of_a_huge_tile_is_refused():
    data = tiff(4, 4, zlib.compress(bytes(16)), Compression=(8,), TileWidth=(16_384,), TileLength=(16_384,))
    assert isinstance(refusal(data, read=read_header), ImageTooLarge)


@pytest.mark.parametrize(
    "error", [OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError, KeyError, RuntimeError], ids=str
)
def test_no_error_of_pillow_gets_out_or_is_quoted(error, monkeypatch):
    def fail(image: Image.Image) -> None:
        raise error("words of Pillow")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UndecodableImage, match="^this JPEG is truncated") as raised:
        decode_rgb(encoded("jpeg"), max_decode_pixels=LIMIT)
    assert "Pillow" not in str(raised.value)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [(ImageFile.ImageFile, "load"), (Image.Exif, "get")], ids=["pixels", "exif"])
def test_what_is_no_fault_of_the_image_is_not_blamed_on_it(place, error, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    data = turned_file("JPEG", 6)
    monkeypatch.setattr(*place, fail)
    with pytest.raises(error):
        decode_rgb(data, max_decode_pixels=LIMIT)


def test_the_first_image_of_a_process_may_be_a_broken_one():
    # Pillow registers its plugins on demand, and the refusal depends on them.
    for data in (encoded("jpeg")[:50], encoded("gif")[:50]):
        program = f"from model.images.decode import read_header\nread_header({data!r}, max_decode_pixels=1)"
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert run.stderr.endswith(f"model.errors.UndecodableImage: {refusal(data)}\n")
