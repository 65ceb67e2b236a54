"""What a simulation is given: costs, a host, its servers, clients. The caller has measured or assumed all of it.

Nothing here is taken for true: `loadtest/simulate/examples/` holds files of inputs, and says where each number is from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from loadtest.errors import UsageError

Balancing = Literal["round_robin", "random", "least_requests", "two_choices", "outstanding_tokens"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PackCost:
    """Seconds of a pack on one engine: `a·Σn + b·Σn² + c`, with n the tokens of each image.

    scatter: measured over predicted seconds of single packs, drawn for each pack; empty for none.
    """

    a: float
    b: float
    c: float
    scatter: tuple[float, ...] = ()

    @classmethod
    def of_shape(cls, *, width: int, depth: int, flops_per_s: float, c: float) -> "PackCost":
        """From arithmetic: 24·width² operations a token and block, and 4·width for each pair of tokens, at a rate that
        the device sustains."""
        return cls(24 * width**2 * depth / flops_per_s, 4 * width * depth / flops_per_s, c)

    def seconds(self, tokens: float, squares: float, packs: float = 1) -> float:
        return self.a * tokens + self.b * squares + self.c * packs


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """Core-seconds from the bytes of one picture to its patches: `fixed_s + s_per_megapixel·megapixels`."""

    fixed_s: float
    s_per_megapixel: float

    def seconds(self, megapixels: float) -> float:
        return self.fixed_s + self.s_per_megapixel * megapixels


@dataclass(frozen=True, slots=True)
class Costs:
    """pack: on one engine. decode: by format. http_s: core-seconds of the HTTP process for a request, half of them
    before its pictures are decoded and half after they have run; http_image_s: as much more for each picture beyond the
    first. link_s: from an HTTP process to an engine process and back, for each picture. bytes_per_pixel: of files, by
    format.
    """

    pack: PackCost
    decode: Mapping[str, DecodeCost]
    http_s: float
    http_image_s: float = 0.0
    link_s: float = 0.0
    bytes_per_pixel: Mapping[str, float] = field(default_factory=dict)

    def decode_s(self, format: str, pixels: int) -> float:
        """Core-seconds of a picture. Raises `UsageError` for a format whose costs are not given."""
        if format not in self.decode:
            raise UsageError(f"costs: decode has no {format}, which the mix has; it has {', '.join(self.decode)}")
        return self.decode[format].seconds(pixels / 1e6)


@dataclass(frozen=True, slots=True)
class Host:
    """One server and its engines on a machine of its own.

    engine_threads: of the cores, for the forwards of each engine; 0 if its device is no processor. The other fields are
    the settings of the same name. load_s: from the start of the process to ready.
    """

    cores: int
    engines: int = 1
    engine_threads: int = 0
    http_workers: int = 1
    decode_threads: int | None = None
    default_max_tokens: int = 256
    max_image_tokens: int = 1024
    max_batch_tokens: int = 16_384
    max_queue_tokens: int | None = None
    max_inflight_bytes: int = 268_435_456
    max_wait_s: float = 0.0
    load_s: float = 30.0
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Clients:
    """tries: how often a client sends a request, at most. It waits for the `Retry-After` of a 429 and up to `jitter` of
    it more, `unready_s` if no server is ready, and not at all after a connection that broke. timeout_s: of each try,
    which the server knows as its deadline. network_s: there and back."""

    tries: int = 3
    jitter: float = 0.5
    unready_s: float = 1.0
    timeout_s: float = 30.0
    network_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """hosts: how many. notice_s: how long a balancer sends to a dead host. replace_s: until another one is there, which
    then loads. deaths_per_hour: of each host. deploy_at_once: hosts that a deploy restarts together."""

    hosts: int = 1
    balancing: Balancing = "least_requests"
    notice_s: float = 5.0
    replace_s: float = 180.0
    deaths_per_hour: float = 0.0
    deploy_at_once: int = 1


def read(path: Path) -> Mapping[str, Any]:
    """A JSON object. Raises `UsageError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not an object")
    return content


def object_in(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The object of this name without its `about`, which is for people. Raises `UsageError`."""
    found = content.get(name)
    if not isinstance(found, dict):
        raise UsageError(f"{where}: {name} is no object")
    return {key: value for key, value in found.items() if key != "about"}


def made(kind: type[T], content: Any, where: str) -> T:
    """A value of `kind` from an object with its fields, and perhaps an `about`. Raises `UsageError`."""
    if not isinstance(content, dict):
        raise UsageError(f"{where}: not an object")
    given = {name: value for name, value in content.items() if name != "about"}
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - known):
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from None


def costs_of(content: Any, where: str) -> Costs:
    """Costs from JSON: `pack` has a, b and c, or width, depth, flops_per_s and c. Raises `UsageError`."""
    costs = made(Costs, content, where)
    pack = object_in(content, "pack", where)
    try:
        cost = (
            PackCost.of_shape(**pack)
            if "width" in pack
            else PackCost(**{**pack, "scatter": tuple(pack.get("scatter", ()))})
        )
    except TypeError as error:
        raise UsageError(f"{where}: pack: {error}") from None
    decode = {
        name: made(DecodeCost, value, f"{where}: decode.{name}")
        for name, value in object_in(content, "decode", where).items()
    }
    return Costs(cost, decode, costs.http_s, costs.http_image_s, costs.link_s, costs.bytes_per_pixel)
