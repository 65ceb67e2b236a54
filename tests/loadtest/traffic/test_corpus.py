"""Pictures that compress like real ones, and the same bytes for the same seed."""

import io
from collections import Counter

import numpy as np
import pytest
import skimage.data
from PIL import Image

from loadtest.errors import UsageError
from loadtest.traffic import corpus
from loadtest.traffic.corpus import from_folder, from_mix, with_bulk
from loadtest.traffic.mix import load, parse
from loadtest.traffic.pictures import CONTENTS, Studio

PHOTO = {"name": "photo", "content": "photo", "megapixels": 0.05}


def bits_a_pixel(image: Image.Image, format: str, **options: int) -> float:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return 8 * len(buffer.getvalue()) / (image.width * image.height)


@pytest.mark.parametrize(("format", "options"), [("jpeg", {"quality": 85}), ("jpeg", {"quality": 60}), ("webp", {})])
def test_a_photo_compresses_like_photographs(format, options):
    real = [
        bits_a_pixel(Image.fromarray(picture()), format, **options)
        for picture in (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)
    ]
    studio = Studio(1)
    ours = [bits_a_pixel(studio.photo(400, 600, np.random.default_rng(n)), format, **options) for n in range(4)]
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    assert min(real) / 1.6 < np.mean(ours) < 1.6 * max(real)
    assert np.mean(ours) < bits_a_pixel(Image.fromarray(noise), format, **options) / 2.5


def test_png_compresses_a_screenshot_well():
    studio, rng = Studio(1), np.random.default_rng(1)
    screen, photo = studio.screenshot(540, 960, rng), studio.photo(540, 960, rng)
    assert bits_a_pixel(screen, "png") < bits_a_pixel(photo, "png") / 4


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", [(1, 1), (3, 400), (64, 48)])
def test_any_size_can_be_painted(content, size):
    picture = Studio(1).paint(content, size[0], size[1], np.random.default_rng(0))
    assert (picture.size, picture.mode) == ((size[1], size[0]), "RGB")


def test_the_same_seed_makes_the_same_bytes_and_another_does_not():
    small = parse({"classes": [PHOTO]}, source="x.json")
    one, two, other = (from_mix(small, count=3, seed=seed).fingerprint() for seed in (1, 1, 2))
    assert one == two != other


def test_pictures_are_what_their_description_says():
    made = from_mix(load("thumbnails"), count=10, seed=1)
    for request in made.requests:
        for picture in request.pictures:
            with Image.open(io.BytesIO(picture.data)) as image:
                assert (image.height, image.width) == (picture.height, picture.width)
                assert image.get_format_mimetype() == picture.media_type


def test_every_pass_sends_each_request_once():
    made = from_mix(parse({"classes": [PHOTO]}, source="x.json"), count=5, seed=1)
    order = corpus.order(made, 12, seed=3)
    assert Counter(order[:5]) == Counter(order[5:10]) == Counter(range(5))
    assert order[:5] != order[5:10]


def test_the_files_of_a_folder_are_sent_unchanged(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("no picture")
    found = from_folder(tmp_path, count=10, seed=1, extra={"max_tokens": 64})
    assert found.skipped == 1
    assert found.requests[0].pictures[0].data == (tmp_path / "a.png").read_bytes()
    assert found.requests[0].params == {"max_tokens": 64}
    with pytest.raises(UsageError, match="no image"):
        from_folder(tmp_path / "nowhere", count=1, seed=1)


@pytest.mark.slow
def test_the_same_seed_writes_the_same_texts():
    first, second = (from_mix(load("search"), count=8, seed=3) for _ in range(2))
    assert [request.texts for request in first.requests] == [request.texts for request in second.requests]
    assert any(request.texts and not request.pictures for request in first.requests)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != from_mix(load("search"), count=8, seed=4).fingerprint()


def test_a_share_of_each_class_says_that_it_is_bulk_and_is_a_class_of_its_own():
    mixed = parse({"classes": [{**PHOTO, "share": 3}, {**PHOTO, "name": "icon", "megapixels": 0.001}]}, source="test")
    plain = from_mix(mixed, count=40, seed=3)
    classed = with_bulk(plain, 0.9, 3)
    assert classed.classes == ("photo", "icon", "photo, bulk", "icon, bulk")
    counts = Counter(classed.classes[request.class_index] for request in classed.requests)
    assert counts == {"photo": 3, "icon": 1, "photo, bulk": 27, "icon, bulk": 9}
    for before, after in zip(plain.requests, classed.requests, strict=True):
        bulk = classed.classes[after.class_index].endswith("bulk")
        assert after.params == ({**before.params, "priority": 1} if bulk else before.params)
        assert after.pictures is before.pictures
    assert with_bulk(plain, 1.0, 3).classes == ("photo, bulk", "icon, bulk")
    assert with_bulk(plain, 0.9, 3).fingerprint() == classed.fingerprint()
