"""How near the vectors of each dtype, and of `decode=fast`, are to those of float32 and exact decoding.

What a fingerprint's variant may change: `model.fingerprint` states a least cosine for each, and a row is `failed` if a
picture's vector is further away. Models are packlight-tiny, other checkpoints that `--models` names, and families of
`python -m loadtest.bench encoders` at their published shapes with random weights. Pictures are scenes cut from those
that scikit-image and scikit-learn carry, or a folder's files, cut alike; for `fast` JPEGs, since others decode alike.

The vectors of random weights resemble one another, so their recall says little; the cosines hold for the depth and the
widths of the model. `recall@10` is that of an index of float32 vectors that is searched with the variant's.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtest.bench.decoding import jpegs
from loadtest.bench.encoders.families import FAMILIES, family_of
from loadtest.bench.layouts import Row, decoded, packs, pictures, readable
from loadtest.bench.vectors import scenes
from model.fingerprint import COSINE_TO_EXACT, FAST
from model.images.decode import DecodeMode, decode_patches, read_header
from model.pack import pack
from model.running.runner import Runner
from model.sizing.plan import plan_image
from service.cli.upgrade.agreement import Agreement
from service.limits import Limits, ModelFacts
from service.requests.results import normalized
from service.settings.settings import Settings

_DTYPES = [dtype for dtype in get_args(Settings.model_fields["dtype"].annotation) if dtype not in ("auto", "float32")]
_JPEGS = ("photo, 0.2 MP", "photo, 12 MP, quality 80", "scan, 5.4 MP, gray")
_MOST_PIXELS = 100_000_000
_K = 10

Vectors = NDArray[np.float32]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, metavar="DIR", help="your own pictures, JPEGs for `fast`")
    parser.add_argument(
        "--models", nargs="+", default=["packlight-tiny", "siglip2", "dinov3"], metavar="MODEL",
        help=f"checkpoint folders, hub ids, and with random weights {', '.join(FAMILIES)} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--dtypes", nargs="*", default=_DTYPES, choices=_DTYPES, help="default: all but float32")
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="scenes at most (default: 200)")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 256], metavar="TOKENS", help="default: 64 256")
    parser.add_argument("--fast", action=argparse.BooleanOptionalAction, default=True, help="measure decode=fast too")


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each model, budget and variant."""
    found = [scene for picture in readable(pictures(options.folder), _MOST_PIXELS) for scene in scenes(picture, 16)]
    chosen = found[:: max(1, len(found) // options.pictures)][: options.pictures]
    return [row for name in options.models for row in _rows(name, chosen, options)]


def _rows(name: str, found: Sequence[Image.Image], options: argparse.Namespace) -> Iterator[Row]:
    with _checkpoint(name) as model:
        runner, facts = _loaded(model, "float32")
        exact = {budget: _vectors(runner, facts, found, budget) for budget in options.budgets}
        if options.fast:
            for budget in options.budgets:
                yield _row(name, FAST, budget, *_exact_and_fast(runner, facts, budget, options))
        for dtype in options.dtypes:
            runner, facts = _loaded(model, dtype)
            for budget, before in exact.items():
                yield _row(name, dtype, budget, before, _vectors(runner, facts, found, budget))


@contextmanager
def _checkpoint(name: str) -> Iterator[str]:
    """What `load_runner` takes: a folder of random weights for a family."""
    if name not in FAMILIES:
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="packlight-variants-") as folder:
        family = family_of(name)
        family.save(Path(folder), family.LAYERS)
        yield folder


def _loaded(model: str, dtype: str) -> tuple[Runner, ModelFacts]:
    from service.loading import load_runner

    return load_runner(Settings.model_validate({"model": model, "dtype": dtype, "text_tower": "off"}))


def _limits(facts: ModelFacts) -> Limits:
    return Limits.of(Settings(), facts)


def _vectors(runner: Runner, facts: ModelFacts, found: Sequence[Image.Image], budget: int) -> Vectors:
    """Float32 `[B, E]` of length 1, in one order for every dtype."""
    limits = _limits(facts)
    images = decoded(found, [budget] * len(found), facts, limits)
    return normalized(np.concatenate([runner.run(batch).pooled for batch in packs(images, limits)]))


def _exact_and_fast(
    runner: Runner, facts: ModelFacts, budget: int, options: argparse.Namespace
) -> tuple[Vectors, Vectors]:
    kinds = jpegs.of_folder(options.folder) if options.folder else jpegs.made(_JPEGS)
    strategy = facts.geometry.default_strategy
    bounds = _limits(facts).budget(facts.geometry, strategy, max_tokens=budget)
    sides: dict[DecodeMode, list[Vectors]] = {"exact": [], "fast": []}
    for data in [picture for kind in kinds for picture in kind.pictures]:
        size = read_header(data, max_decode_pixels=_MOST_PIXELS).size
        plan = plan_image(size, geometry=facts.geometry, budget=bounds, strategy=strategy)
        for decode, side in sides.items():
            _, rows = decode_patches(data, plan, geometry=facts.geometry, max_decode_pixels=_MOST_PIXELS, decode=decode)
            side.append(runner.run(pack([rows], [segment.grid for segment in plan.segments])).pooled[:1])
    exact, fast = (normalized(np.concatenate(side)) for side in sides.values())
    return exact, fast


def _row(name: str, variant: str, budget: int, exact: Vectors, other: Vectors) -> Row:
    found = Agreement.of(exact, other, k=_K)
    stated = COSINE_TO_EXACT.get(variant)
    return {
        "model": name,
        "variant": variant,
        "tokens": budget,
        "pictures": found.pictures,
        "cosine_least": round(found.cosines[0], 6),
        "cosine_1%": round(found.cosines[1], 6),
        "cosine_median": round(found.cosines[2], 6),
        f"recall@{found.k}": round(found.recall, 4),
        "score_shift_most": round(found.shift_most, 5),
        "between_pictures": round(float(np.median((exact @ exact.T)[~np.eye(len(exact), dtype=bool)])), 4),
        "stated": stated,
        "verdict": "none stated" if stated is None else "ok" if found.cosines[0] >= stated else "failed",
    }
