"""`python -m training.judging.colour`: what a colour profile that nobody applies changes in vectors.

Every picture is stored as sRGB, and a second time in Display P3 (as phones do) or Adobe RGB with its profile, both as
JPEG. The second is read once as it is, the profile ignored, and once converted to sRGB. `cosine` is to the vector of
the first. What another compression changes by itself is in the first row. `recall` is how often a crop of a picture, in
other colours and stored in the wider space, finds its picture among all that are stored as sRGB.

The pictures come from sRGB files and have no colour outside of it; a photograph with such colours changes more.
"""

import argparse
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from model.checkpoint.load import load_checkpoint
from training.judging.embed import PictureEmbedder
from training.judging.exam import recall_at_1
from training.judging.probes import crop
from training.judging.real_pictures import built_in_pictures, folder_pictures

_QUALITY = 90
_CROPS = 4  # of each picture


@dataclass(frozen=True, slots=True)
class Space:
    """primaries: XYZ of red, green and blue, adapted to D50. curve: kind and values of an ICC parametric curve."""

    name: str
    primaries: tuple[tuple[float, float, float], ...]
    curve: tuple[int, tuple[float, ...]]


_SRGB_CURVE = (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
P3 = Space(
    "Display P3",
    ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    _SRGB_CURVE,
)
ADOBE_RGB = Space(
    "Adobe RGB",
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    (0, (563 / 256,)),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """space: how pictures were stored. profile: what was done with it. cosines: median and least."""

    space: str
    profile: str
    median_cosine: float
    least_cosine: float
    recall: float


def judge(pictures: Sequence[Image.Image], embed: PictureEmbedder, *, max_tokens: int = 256) -> list[Figures]:
    """A row for each space and way to read it, behind one of pictures that are stored as sRGB again."""
    random = np.random.default_rng(0)
    crops = [crop(picture, random) for picture in pictures for _ in range(_CROPS)]
    places = [place for place in range(len(pictures)) for _ in range(_CROPS)]
    stored = embed([_read(_jpeg(picture)) for picture in pictures], max_tokens)

    def row(space: str, profile: str, whole: Sequence[Image.Image], parts: Sequence[Image.Image]) -> Figures:
        cosines = (embed(whole, max_tokens) * stored).sum(axis=1)
        recall = recall_at_1(embed(parts, max_tokens), stored, places)
        return Figures(space, profile, float(np.median(cosines)), float(cosines.min()), recall)

    again = [[_read(_jpeg(_read(_jpeg(image)))) for image in kind] for kind in (pictures, crops)]
    rows = [row("sRGB", "again", *again)]
    for space in (P3, ADOBE_RGB):
        files = [[_stored_in(space, image) for image in kind] for kind in (pictures, crops)]
        rows.append(row(space.name, "ignored", *([_read(file) for file in kind] for kind in files)))
        rows.append(row(space.name, "managed", *([_managed(file) for file in kind] for kind in files)))
    return rows


def profile(space: Space) -> bytes:
    """An ICC profile (version 4) of a matrix and a curve."""
    white = (0.9642, 1.0, 0.8249)
    kind, values = space.curve
    curve = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, values))
    tags: Mapping[bytes, bytes] = {
        b"desc": _text(space.name),
        b"cprt": _text("none"),
        b"wtpt": _xyz(white),
        **{name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), space.primaries, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">II4s4s4s4s", start + len(body), 0, b"\x04\x20\0\0", b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0")
    header += b"".join(map(_fixed, white))
    return header.ljust(128, b"\0") + table + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", 2 * len(text), 28) + text.encode("utf-16-be")


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65_536))


def _stored_in(space: Space, image: Image.Image) -> bytes:
    """The same colours in another space, with its profile, as a JPEG."""
    made = profile(space)
    return _jpeg(_converted(image, ImageCms.createProfile("sRGB"), _opened(made)), icc_profile=made)


def _jpeg(image: Image.Image, **options: bytes) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0, **options)
    return file.getvalue()


def _read(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file)).convert("RGB")


def _managed(file: bytes) -> Image.Image:
    image = Image.open(BytesIO(file))
    return _converted(image, _opened(image.info["icc_profile"]), ImageCms.createProfile("sRGB"))


def _opened(content: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(content))


def _converted(image: Image.Image, theirs: object, ours: object) -> Image.Image:
    converted = ImageCms.profileToProfile(image, theirs, ours)  # type: ignore[arg-type]
    assert converted is not None
    return converted


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.judging.colour", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="your own pictures (default: those of two packages)")
    parser.add_argument("--model", default="packlight-tiny", help="checkpoint folder or hub id of a NaFlex model")
    options = parser.parse_args(arguments)
    found = folder_pictures(options.folder) if options.folder else built_in_pictures()
    pictures = [picture.image for picture in found if picture.kind == "photo" and _has_colour(picture.image)]
    sys.stdout.write(f"{len(pictures)} pictures\n")
    for row in judge(pictures, PictureEmbedder(load_checkpoint(options.model))):
        cosine = f"cosine {row.median_cosine:.5f}, least {row.least_cosine:.5f}"
        sys.stdout.write(f"{row.space:<11} {row.profile:<8} {cosine}  recall {row.recall:.1%}\n")
    return 0


def _has_colour(image: Image.Image) -> bool:
    channels = np.asarray(image)
    return bool((channels[..., 0] != channels[..., 2]).any())


if __name__ == "__main__":
    sys.exit(main())
