"""A mix: the requests a service gets, as shares of sizes, shapes, formats, budgets, and images and texts a request.

A mix is a JSON file (loadtest/traffic/mixes/; loadtest/README.md describes it). Draws are spread evenly over the shares
and then shuffled, so a few dozen requests already have the proportions asked for, to within one request. This module
knows no pixels and no HTTP.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from loadtest.errors import UsageError
from loadtest.traffic.pictures import CONTENTS, Content

FORMATS = ("jpeg", "png", "webp", "avif")
Param = int | str
_BUILT_IN = Path(__file__).with_name("mixes")
_CLASS_KEYS = {
    "name", "share", "content", "megapixels", "aspect", "format", "quality", "images", "params", "texts", "words",
}  # fmt: skip
# What a picture is like in a class without pictures.
_NO_CONTENT: Content = "photo"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One picture to make and encode. `quality` is the codec's; PNG ignores it."""

    content: Content
    height: int
    width: int
    format: str
    quality: int


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request to make: its class in the mix, its pictures, the number of words of its texts, its parameters."""

    class_index: int
    images: tuple[ImageSpec, ...]
    text_words: tuple[int, ...] = ()
    params: Mapping[str, Param] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Named alternatives and the share of each."""

    values: tuple[str, ...]
    shares: tuple[float, ...]

    def spread(self, count: int, rng: np.random.Generator) -> list[str]:
        """`count` values in random order; each comes as often as its share says, to within one."""
        edges = np.cumsum(self.shares) / math.fsum(self.shares)
        picks = np.searchsorted(edges[:-1], _even(count, rng), side="right")
        return [self.values[pick] for pick in picks]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of numbers, drawn evenly on a logarithmic scale."""

    low: float
    high: float

    def spread(self, count: int, rng: np.random.Generator) -> list[float]:
        return [self.low * (self.high / self.low) ** place for place in _even(count, rng)]


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """One kind of request with its own line in the report. `aspect` is width:height."""

    name: str
    share: float
    content: Content
    megapixels: Span
    aspect: Choice
    format: Choice
    quality: Span
    images: Choice
    texts: Choice
    words: Span
    params: Mapping[str, Choice]

    def draw(self, class_index: int, count: int, rng: np.random.Generator) -> list[RequestSpec]:
        """`count` requests of this class."""
        sizes = [int(number) for number in self.images.spread(count, rng)]
        pictures = iter(self._pictures(sum(sizes), rng))
        texts = [int(number) for number in self.texts.spread(count, rng)]
        words = iter(self.words.spread(sum(texts), rng))
        params = {name: choice.spread(count, rng) for name, choice in self.params.items()}
        return [
            RequestSpec(
                class_index,
                tuple(next(pictures) for _ in range(size)),
                tuple(round(next(words)) for _ in range(texts[place])),
                {name: _param(drawn[place]) for name, drawn in params.items() if drawn[place] != "default"},
            )
            for place, size in enumerate(sizes)
        ]

    def _pictures(self, count: int, rng: np.random.Generator) -> list[ImageSpec]:
        areas, qualities = self.megapixels.spread(count, rng), self.quality.spread(count, rng)
        aspects, formats = self.aspect.spread(count, rng), self.format.spread(count, rng)
        return [
            ImageSpec(self.content, *_size(area, aspect), format, round(quality))
            for area, aspect, format, quality in zip(areas, aspects, formats, qualities, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Mix:
    name: str
    about: str
    classes: tuple[TrafficClass, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.classes)

    def draw(self, count: int, seed: int) -> list[RequestSpec]:
        """`count` requests in random order; each class has its share, to within one request."""
        rng = np.random.default_rng([seed, 0x111])
        numbers = Choice(tuple(map(str, range(len(self.classes)))), tuple(each.share for each in self.classes))
        drawn = [int(number) for number in numbers.spread(count, rng)]
        queues = [iter(each.draw(n, drawn.count(n), rng)) for n, each in enumerate(self.classes)]
        return [next(queues[number]) for number in drawn]


def _even(count: int, rng: np.random.Generator) -> list[float]:
    """`count` points of [0, 1), one in each of `count` equal parts, in random order."""
    return [float(point) for point in (rng.permutation(count) + rng.uniform()) / max(count, 1)]


def _size(megapixels: float, aspect: str) -> tuple[int, int]:
    """`(height, width)` in pixels, of an area in megapixels and an aspect width:height."""
    across, down = (float(side) for side in aspect.split(":"))
    height = math.sqrt(megapixels * 1e6 * down / across)
    return max(1, round(height)), max(1, round(height * across / down))


def _param(text: str) -> Param:
    return int(text) if text.lstrip("-").isdigit() else text


def built_in() -> list[str]:
    return sorted(path.stem for path in _BUILT_IN.glob("*.json"))


def load(name: str) -> Mix:
    """The mix of a built-in name or of a JSON file's path."""
    path = _BUILT_IN / f"{name}.json" if name in built_in() else Path(name)
    if path.suffix != ".json":
        raise UsageError(f"--mix {name}: not one of {', '.join(built_in())}, nor a .json file")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--mix {name}: cannot be read: {error}") from error
    return parse(content, source=path.name)


def parse(content: Any, *, source: str) -> Mix:
    """The mix that a JSON value describes. `source` names it in messages."""
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list) or not content["classes"]:
        raise UsageError(f'{source}: a mix is an object with a list "classes"')
    _only_keys(content, {"name", "about", "classes"}, source)
    classes = [_parse_class(each, f"{source}: class {place}") for place, each in enumerate(content["classes"])]
    names = [each.name for each in classes]
    if len(set(names)) < len(names):
        raise UsageError(f"{source}: two classes have the same name")
    return Mix(str(content.get("name", Path(source).stem)), str(content.get("about", "")), tuple(classes))


def _parse_class(content: Any, where: str) -> TrafficClass:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise UsageError(f'{where}: a class is an object with a "name"')
    where = f'{where} ("{content["name"]}")'
    _only_keys(content, _CLASS_KEYS, where)
    has_images = content.get("images", 1) != 0
    if content.get("content", None if has_images else _NO_CONTENT) not in CONTENTS:
        raise UsageError(f'{where}: "content" is one of {", ".join(get_args(Content))}')
    texts = content.get("texts", 0)
    params = content.get("params", {})
    if not isinstance(params, dict):
        raise UsageError(f'{where}: "params" is an object')
    return TrafficClass(
        name=content["name"],
        share=_number(content.get("share", 1), f"{where}: share"),
        content=cast(Content, content.get("content", _NO_CONTENT)),
        megapixels=_span(content.get("megapixels", None if has_images else 1), f"{where}: megapixels"),
        aspect=_choice(content.get("aspect", "1:1"), f"{where}: aspect", check=_is_aspect),
        format=_choice(content.get("format", "jpeg"), f"{where}: format", check=FORMATS.__contains__),
        quality=_span(content.get("quality", 85), f"{where}: quality"),
        images=_choice(content.get("images", 1), f"{where}: images", check=str.isdigit if texts else _is_count),
        texts=_choice(texts, f"{where}: texts", check=_is_count if texts else str.isdigit),
        words=_span(content.get("words", [4, 16]), f"{where}: words"),
        params={name: _choice(value, f"{where}: params.{name}") for name, value in params.items()},
    )


def _only_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(content) - known):
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"{where}: {value!r} is not a number above 0")
    return float(value)


def _span(value: Any, where: str) -> Span:
    """One number, or `[low, high]`."""
    ends: Sequence[Any] = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or _number(ends[0], where) > _number(ends[1], where):
        raise UsageError(f"{where}: {value!r} is neither a number nor [low, high]")
    return Span(float(ends[0]), float(ends[1]))


def _choice(value: Any, where: str, *, check: Any = lambda text: True) -> Choice:
    """One value, or an object of values and their shares."""
    shares = value if isinstance(value, dict) else {str(value): 1}
    if not shares or isinstance(value, list):
        raise UsageError(f"{where}: {value!r} is neither one value nor an object of values and shares")
    for text in shares:
        if not check(text):
            raise UsageError(f"{where}: {text!r} is not a possible value")
    return Choice(tuple(shares), tuple(_number(share, f"{where}: {text}") for text, share in shares.items()))


def _is_aspect(text: str) -> bool:
    try:
        across, down = (float(side) for side in text.split(":"))
    except ValueError:
        return False
    return 0 < across < math.inf and 0 < down < math.inf


def _is_count(text: str) -> bool:
    return text.isdigit() and int(text) > 0
