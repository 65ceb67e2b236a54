"""How fast the packed forward is, compared with padding, a dense mask, and the machine's bare matrix products.

| contender | what it is |
|---|---|
| packed | this checkout's encoder, from uint8 patch rows to vectors on the host |
| padded | Transformers' model with the same weights, SDPA, every image padded to the workload's cap |
| rectangle | this encoder with every image padded to the longest of the pack |
| dense | this encoder with one block-diagonal mask over the pack |
| ceiling | the bare matrix products of the packed forward, with the same shapes, in the same rounds |
| before | the packed forward of another checkout (`--before`), by that checkout's own contender |

Each contender is a process, so that its memory can be measured. They take turns, in alternating order. A time is the
median over rounds; a ratio is that of medians. FLOP count the matrix products, attention's included, of the image
tokens alone. `peak_mib` is the most by which forwards raise the process's resident memory. The bench stops if
contenders give different vectors.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.forwards import contender
from loadtest.bench.forwards.process import Contender, in_turn, least_cosine, started
from model.encoders.siglip.naflex import NaFlexConfig
from model.sizing.plan import naflex_grid

_CHECKOUT = Path(__file__).parents[2]
# Common sizes, height × width: photos of either orientation, screens, pages, panoramas, receipts.
_SIZES = ((480, 640), (3000, 4000), (4032, 3024), (1080, 1920), (2339, 1654), (1000, 1000), (1440, 3440), (1500, 600))
_PAGES = ((2339, 1654), (3508, 2480), (1650, 1275), (1500, 600), (2200, 1700), (3300, 2550), (2400, 1000), (2339, 1654))
_BUDGETS = (64, 128, 256, 256, 256, 576, 576, 1024)
_CAPS = {"uniform": 256, "mixed": 1024, "documents": 1024, "thumbnails": 64}
WORKLOADS: dict[str, list[tuple[int, int]]] = {
    "uniform": [naflex_grid(*_SIZES[i % 8], 16, 256) for i in range(16)],
    # Each size with two budgets that are far apart.
    "mixed": [naflex_grid(*_SIZES[i % 8], 16, _BUDGETS[(3 * i + i // 8) % 8]) for i in range(16)],
    "documents": [naflex_grid(*page, 16, 1024) for page in _PAGES],
    "thumbnails": [naflex_grid(*_SIZES[i % 8], 16, 64) for i in range(32)],
}
_DTYPES = ("bfloat16", "float32")
# Least cosines to a padded contender, which rounds in other places.
_AGREE = {"bfloat16": 0.999, "float32": 0.999999}
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    shape: str
    workload: str
    dtype: str

    @property
    def config(self) -> NaFlexConfig:
        return contender.SHAPES[self.shape]

    @property
    def grids(self) -> list[tuple[int, int]]:
        return WORKLOADS[self.workload]

    @property
    def cap(self) -> int:
        return _CAPS[self.workload]

    def flop(self) -> int:
        """FLOP of one packed forward; a multiplication and its addition are two."""
        lengths = [h * w for h, w in self.grids]
        linear = contender.linear_layers(self.config, sum(lengths), len(lengths))
        attention = sum(4 * self.config.width * self.config.depth * length**2 for length in lengths)
        return attention + sum(2 * rows * into * out * count for rows, into, out, count in linear)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender (default: 7)")
    parser.add_argument("--shapes", nargs="+", choices=contender.SHAPES, default=list(contender.SHAPES))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_DTYPES))
    parser.add_argument("--threads", type=int, help="threads of each contender (default: PyTorch's)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="`processor` suits a shared machine, with one thread (default: wall)",
    )
    parser.add_argument(
        "--without", nargs="+", choices=("padded", "rectangle", "dense"), default=[], help="contenders to leave out"
    )
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each shape, dtype and workload. Raises `RuntimeError` if contenders give different vectors."""
    cases = [
        Case(shape, workload, dtype)
        for shape in options.shapes
        for dtype in options.dtypes
        for workload in options.workloads
    ]
    return [_measure(case, options) for case in cases]


def _measure(case: Case, options: argparse.Namespace) -> dict[str, object]:
    kinds = [kind for kind in ("packed", "padded", "rectangle", "dense", "ceiling") if kind not in options.without]
    kinds += ["before"] if options.before else []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        contenders: dict[str, Contender] = {}
        for kind in kinds:
            checkout = options.before if kind == "before" else _CHECKOUT
            process = _started(kind, case, checkout.resolve(), Path(folder), options)
            contenders[kind] = running.enter_context(process)
        _check_agreement(case, contenders)
        for number in range(options.rounds):
            for each in in_turn(contenders.values(), number):
                each.run()
        peaks = {kind: each.finish() for kind, each in contenders.items()}
    return _row(case, contenders, peaks)


def _started(
    kind: str, case: Case, checkout: Path, folder: Path, options: argparse.Namespace
) -> AbstractContextManager[Contender]:
    answer = folder / f"{kind}.npy"
    job = {
        "kind": "packed" if kind == "before" else kind,
        "shape": case.shape,
        "dtype": case.dtype,
        "grids": case.grids,
        "cap": case.cap,
        "clock": options.clock,
        "answer": str(answer),
    }
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    if kind == "ceiling":
        # Reuse memory that is mapped already: page faults are not part of a product.
        environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    # The checkout's own contender: modules may have other names there.
    program = next((checkout / "loadtest").rglob("contender.py"))
    command = [sys.executable, str(program), json.dumps(job)]
    return started(command, environment, answer)


def _check_agreement(case: Case, contenders: dict[str, Contender]) -> None:
    ours = contenders["packed"].pooled
    for kind in {*contenders} - {"packed", "ceiling"}:
        theirs = contenders[kind].pooled
        cosine = least_cosine(ours, theirs)
        if cosine < _AGREE[case.dtype]:
            raise RuntimeError(f"{case}: packed and {kind} give different vectors, cosine {cosine:.6f}")


def _row(case: Case, contenders: dict[str, Contender], peaks: dict[str, float]) -> dict[str, object]:
    packed = contenders["packed"].median_s
    row: dict[str, object] = {
        "shape": case.shape,
        "dtype": case.dtype,
        "workload": case.workload,
        "images": len(case.grids),
        "tokens": sum(h * w for h, w in case.grids),
        "padded_tokens": case.cap * len(case.grids),
        "gflops": round(case.flop() / packed / 1e9),
        "share_of_ceiling": round(contenders["ceiling"].median_s / packed, 3),
    }
    for kind, each in contenders.items():
        row[f"{kind}_ms"] = round(each.median_s * 1000, 1)
        if kind not in ("packed", "ceiling"):
            row[f"{kind}_over_packed"] = round(each.median_s / packed, 2)
        if kind != "ceiling":
            row[f"{kind}_peak_mib"] = round(peaks[kind] / _MIB)
    return row
