"""What is asked of a fleet: kinds of requests with their costs, and how the rate goes over a day."""

import math
from dataclasses import dataclass
from functools import cached_property

from loadtest.simulate.inputs import Costs, Host
from loadtest.traffic.mix import Mix, RequestSpec
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image

_PATCH = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a request: its tokens, the core-seconds of decoding it, its bytes."""

    tokens: int
    decode_s: float
    bytes: int


@dataclass(frozen=True)
class Kind:
    """One distinct request. Requests repeat them in random order."""

    pictures: tuple[Picture, ...]

    @cached_property
    def tokens(self) -> int:
        return sum(picture.tokens for picture in self.pictures)

    @cached_property
    def bytes(self) -> int:
        return sum(picture.bytes for picture in self.pictures)


def image_tokens(height: int, width: int, cap: int) -> int:
    """The tokens of an image under a budget, for a NaFlex model with patches of 16 pixels."""
    geometry = Geometry.for_naflex(_PATCH, cap)
    return plan_image(
        (height, width), geometry=geometry, budget=Budget.of_tokens(cap, _PATCH), strategy="naflex"
    ).tokens


def kinds_of(mix: Mix, count: int, seed: int, *, costs: Costs, host: Host) -> list[Kind]:
    """`count` distinct requests of a mix. Its texts are left out, and requests of texts alone."""
    drawn = [spec for spec in mix.draw(count, seed) if spec.images]
    return [_kind(spec, costs, host) for spec in drawn]


def _kind(spec: RequestSpec, costs: Costs, host: Host) -> Kind:
    cap = min(int(spec.params.get("max_tokens", host.default_max_tokens)), host.max_image_tokens)
    pictures = []
    for image in spec.images:
        pixels = image.height * image.width
        tokens = image_tokens(image.height, image.width, cap)
        size = round(pixels * costs.bytes_per_pixel.get(image.format, 0.0))
        pictures.append(Picture(tokens, costs.decode_s(image.format, pixels), size))
    return Kind(tuple(pictures))


def day_rate(mean: float, hour: float, *, swing: float = 0.6, peak_hour: float = 20.0) -> float:
    """Requests a second at an hour of a day whose mean is `mean`: a cosine that is `1 + swing` times it at the peak."""
    return mean * (1 + swing * math.cos(2 * math.pi * (hour - peak_hour) / 24))
