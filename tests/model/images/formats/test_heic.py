"""HEIC: the pixels that were written, upright by the file's own properties; or a word of what to install."""

import os
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageOps

from model.errors import ImageError, ImageTooLarge, UndecodableImage
from model.images.container import formats
from model.images.decode import ImageHeader, decode_rgb, read_header
from model.images.formats import heic
from model.images.image_files import image_files
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from service.__main__ import main
from tests.pictures import picture, save

LIMIT = 1_000_000
NAFLEX = Geometry.for_naflex(16, 64)
CASES = int(os.environ.get("FUZZ_CASES", "60"))
# RGB as it is, with nothing lost.
LOSSLESS: dict[str, Any] = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def encoded(image: Image.Image, **options: Any) -> bytes:
    heic.register()
    return save(image, "HEIF", **LOSSLESS | options)


def decoded(data: bytes) -> Any:
    return np.asarray(decode_rgb(data, max_decode_pixels=LIMIT))


def turned(orientation: int) -> Image.Image:
    """A picture that is still to be turned."""
    image = picture(24, 40)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.info["exif"] = exif.tobytes()
    return image


@pytest.fixture
def reader() -> Iterator[ImageReader]:
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as made:
        yield made


@pytest.mark.parametrize("size", [(24, 40), (37, 53), (64, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_has_the_pixels_that_were_written(size: tuple[int, int], mode: str) -> None:
    image = picture(*size, mode=mode)
    data = encoded(image)
    assert read_header(data, max_decode_pixels=LIMIT) == ImageHeader("HEIC", size)
    assert np.array_equal(decoded(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_by_its_own_properties_and_not_again_by_exif(orientation: int) -> None:
    """A phone writes both: `irot` or `imir`, and an EXIF block that says the same."""
    image = turned(orientation)
    data = encoded(image, exif=image.info["exif"])
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    assert np.array_equal(decoded(data), np.asarray(ImageOps.exif_transpose(image)))


def test_an_orientation_in_exif_alone_turns_nothing() -> None:
    upright, turn = (b"\x01\x12\0\3\0\0\0\1\0" + bytes([orientation]) for orientation in (1, 6))
    data = encoded(picture(24, 40), exif=turned(1).info["exif"])
    assert upright in data
    data = data.replace(upright, turn)
    assert np.array_equal(decoded(data), np.asarray(picture(24, 40)))


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = picture(24, 40, mode="LA" if mode == "LA" else "RGBA")
    if mode == "RGBa":
        premultiplied = image.convert("RGBa")
        data = encoded_raw("RGBa", premultiplied.size, premultiplied.tobytes())
        image = premultiplied.convert("RGBA")
    else:
        data = encoded(image)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    assert np.array_equal(decoded(data), np.asarray(white.convert("RGB")))


def encoded_raw(mode: str, size: tuple[int, int], samples: bytes) -> bytes:
    out = BytesIO()
    pillow_heif.from_bytes(mode, size, samples).save(out, **LOSSLESS)
    return out.getvalue()


def test_ten_bits_become_their_highest_eight() -> None:
    values = np.arange(1024, dtype="<u2").reshape(32, 32)
    samples = np.repeat((values << 6)[..., None], 3, axis=2)
    data = encoded_raw("RGB;16", (32, 32), samples.tobytes())
    assert np.array_equal(decoded(data)[..., 0], values >> 2)


def test_a_picture_of_many_tiles_is_whole() -> None:
    image = picture(300, 500)
    data = encoded(image, tile_size=128)
    assert b"grid" in data
    assert read_header(data, max_decode_pixels=LIMIT).size == (300, 500)
    assert np.array_equal(decoded(data), np.asarray(image))


def test_the_primary_picture_of_several_is_read() -> None:
    file, out = pillow_heif.from_pillow(picture(24, 40, seed=1)), BytesIO()
    file.add_from_pillow(picture(24, 40, seed=2))
    file.save(out, primary_index=1, **LOSSLESS)
    assert np.array_equal(decoded(out.getvalue()), np.asarray(picture(24, 40, seed=2)))


@pytest.mark.parametrize("tiled", [False, True])
def test_a_file_that_is_cut_off_is_refused(tiled: bool) -> None:
    """libheif leaves gray what it finds no tile for, without a word."""
    data = encoded(picture(200, 200), **({"tile_size": 64} if tiled else {}))
    media = data.index(b"mdat") - 4
    for length in (12, 40, media - 1, media, media + 8, *range(media, len(data), 3001), len(data) - 1):
        with pytest.raises(UndecodableImage):
            decoded(data[:length])


def test_pixels_are_counted_before_any_is_decoded() -> None:
    data = encoded(picture(100, 100), tile_size=64)
    for call in (read_header, decode_rgb):
        with pytest.raises(ImageTooLarge, match="the image takes 10,000 pixels to decode"):
            call(data, max_decode_pixels=9_999)


def test_a_worker_process_decodes_it(reader: ImageReader) -> None:
    data = encoded(picture(64, 96))
    header = reader.read_header(data)
    plan = plan_image(header.size, geometry=NAFLEX, budget=Budget.of_tokens(64, 16), strategy="native")
    _, rows = reader.decode_patches(data, plan, geometry=NAFLEX)
    png = save(picture(64, 96), "PNG")
    assert np.array_equal(rows, reader.decode_patches(png, plan, geometry=NAFLEX)[1])


def test_broken_files_are_refused_or_give_rows(reader: ImageReader) -> None:
    random = Random(3)
    whole = [encoded(picture(40, 60)), encoded(picture(90, 70), tile_size=64), encoded(picture(30, 30, mode="RGBA"))]
    for _ in range(CASES):
        data = bytearray(random.choice(whole))
        for _ in range(random.randint(1, 8)):
            data[random.randrange(len(data) if random.random() < 0.5 else 3000)] = random.randrange(256)
        try:
            header = reader.read_header(bytes(data))
            plan = plan_image(header.size, geometry=NAFLEX, budget=Budget.of_tokens(64, 16), strategy="naflex")
            new_plan, rows = reader.decode_patches(bytes(data), plan, geometry=NAFLEX)
        except ImageError:
            continue
        assert rows.shape == (new_plan.tokens, 768)


def test_it_is_one_of_the_formats_where_its_package_is_installed() -> None:
    assert formats()[-1] == "HEIC"


def test_without_its_package_no_folder_is_searched_for_it_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_heif: None
) -> None:
    save_to = {"a.png": picture(20, 20), "b.png": picture(20, 20)}
    for name, image in save_to.items():
        image.save(tmp_path / name)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "HEIC" not in formats()
    assert main(["embed", "--max-tokens", "4", "--neighbors", str(tmp_path), str(tmp_path / "a.png")]) == 0
    err = capsys.readouterr().err
    assert "not searched: 1 .heic (IMG_1.HEIC)\n" in err
    assert f"{heic.HOW_TO_READ}\n" in err


def test_a_folder_is_searched_for_it(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(encoded(picture(20, 20)))
    assert [path.name for path in image_files(tmp_path)] == ["IMG_1.HEIC"]
