"""What colour profiles change: profiles against known colours, and figures of real photographs."""

from io import BytesIO

import pytest
from PIL import Image, ImageCms

from model.checkpoint.load import load_checkpoint
from tests import pictures
from training.judging.colour import ADOBE_RGB, P3, Space, judge, profile
from training.judging.embed import PictureEmbedder


@pytest.mark.parametrize(
    ("space", "red", "green"),
    [(P3, (234, 51, 35), (117, 251, 76)), (ADOBE_RGB, (219, 0, 0), (144, 255, 60))],
)
def test_primaries_of_srgb_have_their_known_values_in_a_wider_space(
    space: Space, red: tuple[int, int, int], green: tuple[int, int, int]
) -> None:
    theirs = ImageCms.ImageCmsProfile(BytesIO(profile(space)))
    assert ImageCms.getProfileDescription(theirs).strip() == space.name
    image = Image.new("RGB", (2, 1), "#ff0000")
    image.putpixel((1, 0), (0, 255, 0))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), theirs)
    assert converted is not None
    for at, want in enumerate((red, green)):
        assert converted.getpixel((at, 0)) == pytest.approx(want, abs=1)


@pytest.mark.slow
def test_a_managed_profile_is_nearer_to_the_picture_than_an_ignored_one() -> None:
    names = ("coffee.png", "rocket.jpg", "astronaut.png")
    photos = [Image.open(BytesIO(pictures.photograph_file(name))).convert("RGB") for name in names]
    rows = judge(photos, PictureEmbedder(load_checkpoint("packlight-tiny")), max_tokens=64)
    assert [(row.space, row.profile) for row in rows] == [
        ("sRGB", "again"), ("Display P3", "ignored"), ("Display P3", "managed"),
        ("Adobe RGB", "ignored"), ("Adobe RGB", "managed"),
    ]  # fmt: skip
    assert rows[1].least_cosine < rows[2].least_cosine
    assert rows[3].least_cosine < rows[4].least_cosine
