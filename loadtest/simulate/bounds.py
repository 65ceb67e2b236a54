"""How many images a second each part of a host can do, and a fleet's store and balancer: pure arithmetic.

The least of them is the bound. Nothing here waits for anything, so these are rates that queues approach from below.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.simulate.demand import Kind
from loadtest.simulate.inputs import Costs, Host

# The share of a pack that the scheduler fills from a long queue of mixed sizes (`python -m loadtest.bench layouts`).
FILL = 0.997


class Bound(NamedTuple):
    """What holds the rate, and the images a second at which it does."""

    name: str
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What one image takes, on average. passes: how often it is read and decoded. host_s: core-seconds beside decoding;
    served: those of HTTP processes. images_a_read: that a request to the store brings."""

    device_s: float
    decode_s: float
    host_s: float
    read_bytes: float
    write_bytes: float
    passes: float = 1.0
    images_a_read: float = 1.0
    served: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """What all machines share, 0 for no bound: a store and a balancer."""

    store_bytes_per_s: float = 0.0
    store_requests_per_s: float = 0.0
    balancer_bytes_per_s: float = 0.0


def device_s(kinds: Sequence[Kind], costs: Costs, *, max_batch_tokens: int) -> float:
    """Seconds of a device for one image, in full packs."""
    tokens = [picture.tokens for kind in kinds for picture in kind.pictures]
    packs = sum(tokens) / (max_batch_tokens * FILL)
    return costs.pack.seconds(sum(tokens), sum(n * n for n in tokens), packs) / len(tokens)


def work_of(kinds: Sequence[Kind], costs: Costs, host: Host) -> Work:
    """A served image of these requests."""
    pictures = [picture for kind in kinds for picture in kind.pictures]
    http_s = sum(costs.http_s + costs.http_image_s * (len(kind.pictures) - 1) for kind in kinds)
    return Work(
        device_s=device_s(kinds, costs, max_batch_tokens=host.max_batch_tokens),
        decode_s=statistics.fmean(picture.decode_s for picture in pictures),
        host_s=http_s / len(pictures),
        read_bytes=statistics.fmean(picture.bytes for picture in pictures),
        write_bytes=0.0,
        served=True,
    )


def host_bounds(work: Work, host: Host, network_bytes_per_s: float = 0.0) -> list[Bound]:
    """The bounds of one host. Forwards on its cores count among the work of the cores."""
    on_cores_s = work.decode_s * work.passes + work.host_s
    bounds = [Bound("device", host.engines / work.device_s)]
    forward_s = work.device_s * host.engine_threads
    bounds.append(Bound("decoding" if not forward_s else "cores", host.cores / (on_cores_s + forward_s)))
    if work.served:
        bounds.append(Bound("HTTP processes", host.http_workers / work.host_s))
    if network_bytes_per_s:
        bounds.append(Bound("network", network_bytes_per_s / (work.read_bytes * work.passes + work.write_bytes)))
    return bounds


def shared_bounds(work: Work, shared: Shared) -> list[Bound]:
    """The bounds of what all machines share."""
    found: Mapping[str, tuple[float, float]] = {
        "store, bytes": (shared.store_bytes_per_s, work.read_bytes * work.passes + work.write_bytes),
        "store, requests": (shared.store_requests_per_s, work.passes / work.images_a_read),
        "balancer": (shared.balancer_bytes_per_s, work.read_bytes + work.write_bytes),
    }
    return [Bound(name, rate / each) for name, (rate, each) in found.items() if rate and each]


def least(bounds: Sequence[Bound]) -> Bound:
    return min(bounds, key=lambda bound: bound.images_per_s)
