"""The files with which the event loop is measured are what their names say."""

from io import BytesIO

import pytest
from PIL import Image

from loadtest.bench.decoding import formats
from model.images.decode import read_header

SIZE = 100_000

# Warnings are errors in tests only; here they would hide what follows.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def test_files_with_metadata_are_read_and_as_large_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_METADATA_BYTES", SIZE)
    for name, data in formats._with_metadata():
        assert read_header(data, max_decode_pixels=1000).size == (24, 40), name
        assert "packed" in name or len(data) >= SIZE, name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16", "CMYK"])
def test_pictures_have_the_mode_asked_for(mode: str) -> None:
    assert formats._picture(16, 24, mode).mode == mode


def test_a_turned_picture_is_read_with_its_sides_swapped() -> None:
    data = formats._saved(formats._picture(16, 24, "RGB"), "JPEG", turned=True)
    assert Image.open(BytesIO(data)).size == (24, 16)
    assert read_header(data, max_decode_pixels=1000).size == (24, 16)
