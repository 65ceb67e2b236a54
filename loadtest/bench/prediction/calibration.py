"""The simulator's inputs, measured: what decoding, HTTP and packs cost on this machine.

decode   processor time of one thread for each picture of the corpora, by format: fixed, and for a megapixel
pack     a, b and c of the packs that ran with one, few and many requests in flight, and how they scatter
http     processor time of the HTTP process, less decoding: for a request, and for each image beyond its first
link     what a lone request takes beyond all of that: waking processes and threads
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls  # type: ignore[import-untyped]

from loadtest.bench.prediction.live import Live, Pack, Seen
from loadtest.simulate import demand
from loadtest.simulate.demand import Kind
from loadtest.simulate.inputs import Costs, DecodeCost, PackCost
from loadtest.traffic.corpus import Corpus, Picture, Request, order
from model.images.decode import decode_patches, read_header
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image

_PATCH, _DEFAULT_TOKENS = 16, 256
_MAX_PIXELS = 50_000_000
_LOOKS = 3
# Requests of the sender's list; more than it comes to.
_MANY = 20_000
# Packs this many times off the first fit are an accident of the machine.
_OUTLIER = 1.5


def decode_costs(corpora: Sequence[Corpus]) -> dict[str, DecodeCost]:
    """By format, from every picture of the corpora. A format that they lack is taken for the dearest of them."""
    points: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for corpus in corpora:
        for request in corpus.requests:
            for picture in request.pictures:
                seconds = statistics.median(_decoded_s(picture, _cap(request)) for _ in range(_LOOKS))
                points[picture.media_type.removeprefix("image/")].append((_megapixels(picture), seconds))
    return {format: _line(np.array(each)) for format, each in points.items()}


def costs_of(live: Live, single: Corpus, several: Corpus, decode: Mapping[str, DecodeCost], seconds: float) -> Costs:
    """By a server of one engine that is idle. single, several: corpora of one image a request, and of several."""
    first = Costs(PackCost(0.0, 0.0, 0.0), decode, 0.0)
    packs: list[Pack] = []
    seen: list[tuple[Seen, Corpus]] = []
    for corpus, in_flight, share in ((single, 1, 0.2), (single, 4, 0.2), (several, 2, 0.2), (single, 40, 0.4)):
        numbers = order(corpus, _MANY, seed=5)
        seen.append((live.send(corpus, numbers, seconds=seconds * share, concurrency=in_flight), corpus))
        packs += live.packs()
    pack = fitted(packs)
    http_s, http_image_s = _http(seen, first)
    costs = replace(first, pack=pack, http_s=http_s, http_image_s=http_image_s)
    return replace(costs, link_s=_link_s(*seen[0], costs))


def kinds_of(corpus: Corpus, costs: Costs) -> list[Kind]:
    """What the simulator needs to know of each request of a corpus."""
    return [
        Kind(
            tuple(
                demand.Picture(
                    demand.image_tokens(picture.height, picture.width, _cap(request)),
                    costs.decode[picture.media_type.removeprefix("image/")].seconds(_megapixels(picture)),
                    len(picture.data),
                )
                for picture in request.pictures
            )
        )
        for request in corpus.requests
    ]


def fitted(packs: Sequence[Pack]) -> PackCost:
    """Non-negative a, b and c with the least squares of relative residuals; a second fit leaves accidents out."""
    features = np.array(
        [[sum(pack.lengths), sum(length**2 for length in pack.lengths), 1.0] for pack in packs], np.float64
    )
    seconds = np.array([pack.seconds for pack in packs])
    kept = np.ones(len(packs), bool)
    for _ in range(2):
        relative = features[kept] / seconds[kept, None]
        scale = np.sqrt((relative**2).mean(axis=0))
        solution = nnls(relative / scale, np.ones(int(kept.sum())))[0] / scale
        ratios = seconds / (features @ solution)
        kept = (ratios < _OUTLIER) & (ratios > 1 / _OUTLIER)
    a, b, c = (float(value) for value in solution)
    return PackCost(a, b, c, tuple(float(ratio) for ratio in ratios))


def _http(seen: Sequence[tuple[Seen, Corpus]], costs: Costs) -> tuple[float, float]:
    """Processor seconds for a request, and for each image beyond its first."""
    rows: list[list[float]] = []
    spent: list[float] = []
    for run, corpus in seen:
        kinds = kinds_of(corpus, costs)
        answered = [kinds[number] for number, ok in zip(run.templates, run.records.ok, strict=True) if ok]
        images = sum(len(kind.pictures) for kind in answered)
        decode_s = sum(picture.decode_s for kind in answered for picture in kind.pictures)
        rows.append([len(answered), images - len(answered)])
        spent.append(sum(seconds for name, seconds in run.cpu_s.items() if name not in ("engine", "sender")) - decode_s)
    http_s, http_image_s = nnls(np.array(rows), np.array(spent))[0]
    return float(http_s), float(http_image_s)


def _link_s(run: Seen, corpus: Corpus, costs: Costs) -> float:
    """The median of what lone requests took beyond their decoding, HTTP and pack."""
    kinds = kinds_of(corpus, costs)
    stages_ms = run.records.stages_ms
    ran_ms = stages_ms["forward"] + stages_ms["pack"] + stages_ms["decode"]
    rest = [
        (latency_ms - own_ms) / 1e3 - costs.http_s - costs.http_image_s * (len(kinds[number].pictures) - 1)
        for number, latency_ms, own_ms in zip(run.templates, run.records.service_ms, ran_ms, strict=True)
    ]
    return max(0.0, float(np.nanmedian(rest)))


def _cap(request: Request) -> int:
    return int(request.params.get("max_tokens", _DEFAULT_TOKENS))


def _megapixels(picture: Picture) -> float:
    return picture.height * picture.width / 1e6


def _decoded_s(picture: Picture, cap: int) -> float:
    geometry = Geometry.for_naflex(_PATCH, cap)
    began_s = time.thread_time()
    header = read_header(picture.data, max_decode_pixels=_MAX_PIXELS)
    plan = plan_image(header.size, geometry=geometry, budget=Budget.of_tokens(cap, _PATCH), strategy="naflex")
    decode_patches(picture.data, plan, geometry=geometry, max_decode_pixels=_MAX_PIXELS, decode="exact")
    return time.thread_time() - began_s


def _line(points: NDArray[np.float64]) -> DecodeCost:
    """points: `[n, 2]` of megapixels and seconds; relative residuals are least."""
    features = np.stack([np.ones(len(points)), points[:, 0]], axis=1) / points[:, 1:]
    fixed_s, s_per_megapixel = nnls(features, np.ones(len(points)))[0]
    return DecodeCost(float(fixed_s), float(s_per_megapixel))
