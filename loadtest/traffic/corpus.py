"""The distinct requests of a run, with their pictures encoded and texts written before anything is sent.

They come from a mix and a seed, or from a folder of the user's own files. `bodies` knows how a request travels.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from loadtest.errors import UsageError
from loadtest.traffic.mix import ImageSpec, Mix, Param
from loadtest.traffic.pictures import Studio

Progress = Callable[[int, int], None]
# Common words: a tokenizer makes about one token of each.
_WORDS = """
a the of on in with and old new small large red blue green white dark bright wooden dog cat horse bird child woman man
street house tree river mountain beach sky car bicycle train table chair cup book letter page sign screen window door
garden snow rain night morning market bridge boat field road hand face standing sitting running
"""
_SIZES = (("under 0.3 MP", 0.3), ("0.3 to 2 MP", 2.0), ("over 2 MP", float("inf")))


@dataclass(frozen=True, slots=True)
class Picture:
    """One encoded image. `media_type` is image/jpeg and the like."""

    data: bytes
    height: int
    width: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Request:
    class_index: int
    pictures: tuple[Picture, ...]
    params: Mapping[str, Param]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """The requests that a run sends. Runs with the same fingerprint sent the same pictures, texts and parameters.

    `skipped` counts the files of a folder that could not be read as images.
    """

    name: str
    classes: tuple[str, ...]
    requests: tuple[Request, ...]
    skipped: int = 0

    @property
    def images(self) -> int:
        return sum(len(request.pictures) for request in self.requests)

    @property
    def picture_bytes(self) -> int:
        return sum(len(picture.data) for request in self.requests for picture in request.pictures)

    @property
    def megapixels(self) -> float:
        return sum(p.height * p.width for request in self.requests for p in request.pictures) / 1e6

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for request in self.requests:
            digest.update(repr((request.class_index, sorted(request.params.items()))).encode())
            for picture in request.pictures:
                digest.update(hashlib.sha256(picture.data).digest())
            for text in request.texts:
                digest.update(text.encode())
        return digest.hexdigest()[:16]


def _silent(done: int, total: int) -> None:
    """Shows no progress."""


def from_mix(
    mix: Mix, *, count: int, seed: int, extra: Mapping[str, Param] | None = None, progress: Progress = _silent
) -> Corpus:
    """`count` distinct requests of a mix, each with the `extra` parameters."""
    studio = Studio(seed)
    requests = []
    for place, spec in enumerate(mix.draw(count, seed)):
        progress(place, count)
        rng = np.random.default_rng([seed, 0x222, place])
        pictures = tuple(_encode(studio, image, rng) for image in spec.images)
        texts = tuple(" ".join(rng.choice(_WORDS.split(), words)) for words in spec.text_words)
        requests.append(Request(spec.class_index, pictures, {**spec.params, **(extra or {})}, texts))
    return Corpus(mix.name, mix.class_names, tuple(requests))


def from_folder(folder: Path, *, count: int, seed: int, extra: Mapping[str, Param] | None = None) -> Corpus:
    """One request for each of at most `count` images of a folder, chosen by the seed and classed by area."""
    # A link that leads nowhere is counted with the files that are not read.
    files = sorted(path for path in folder.rglob("*") if path.is_file() or not path.exists()) if folder.is_dir() else []
    order = np.random.default_rng([seed, 0x333]).permutation(len(files))
    requests: list[Request] = []
    skipped = 0
    for place in order:
        if len(requests) == count:
            break
        picture = _read(files[place])
        if picture is None:
            skipped += 1
        else:
            requests.append(Request(_class_of(picture), (picture,), dict(extra or {})))
    if not requests:
        raise UsageError(f"--images {folder}: no image that can be read")
    return Corpus(folder.name, tuple(name for name, _ in _SIZES), tuple(requests), skipped)


def with_bulk(corpus: Corpus, share: float, seed: int) -> Corpus:
    """A share of the requests of each class say that nobody waits for them, and are a class of their own."""
    rng = np.random.default_rng([seed, 0x555])
    requests = list(corpus.requests)
    for number in range(len(corpus.classes)):
        places = [place for place, request in enumerate(requests) if request.class_index == number]
        for place in rng.permutation(places)[: round(share * len(places))]:
            # As vLLM has it, so that a server of another kind can be asked.
            params = {**requests[place].params, "priority": 1}
            requests[place] = replace(requests[place], params=params, class_index=number + len(corpus.classes))
    names = [*corpus.classes, *(f"{name}, bulk" for name in corpus.classes)]
    used = sorted({request.class_index for request in requests})
    kept = tuple(replace(request, class_index=used.index(request.class_index)) for request in requests)
    return replace(corpus, classes=tuple(names[number] for number in used), requests=kept)


def order(corpus: Corpus, count: int, seed: int) -> list[int]:
    """The order of `count` requests: the whole corpus, shuffled again for each pass, so that shares always hold."""
    rng = np.random.default_rng([seed, 0x444])
    size = len(corpus.requests)
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return [int(index) for index in np.concatenate(rounds)[:count]] if rounds else []


def first_of_each_class(corpus: Corpus) -> Sequence[int]:
    """The place of one request of every class in the corpus, to try before the run."""
    places: dict[int, int] = {}
    for place, request in enumerate(corpus.requests):
        places.setdefault(request.class_index, place)
    return [places[number] for number in sorted(places)]


def _encode(studio: Studio, spec: ImageSpec, rng: np.random.Generator) -> Picture:
    picture = studio.paint(spec.content, spec.height, spec.width, rng)
    buffer = io.BytesIO()
    options = {} if spec.format == "png" else {"quality": min(spec.quality, 100)}
    picture.save(buffer, spec.format, **options)
    return Picture(buffer.getvalue(), spec.height, spec.width, f"image/{spec.format}")


def _read(path: Path) -> Picture | None:
    """The unchanged file, or none if Pillow does not know its header."""
    try:
        with Image.open(path) as image:
            media_type = image.get_format_mimetype()
            width, height = image.size
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return Picture(path.read_bytes(), height, width, media_type) if media_type else None


def _class_of(picture: Picture) -> int:
    area = picture.height * picture.width / 1e6
    return next(number for number, (_, limit) in enumerate(_SIZES) if area < limit)
