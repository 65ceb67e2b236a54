"""How fast the packed forward is, compared with padding, other engines, and the machine's bare matrix products.

| contender | what it is |
|---|---|
| packed | this checkout's encoder, from uint8 patch rows to vectors on the host |
| padded | Transformers' model with the same weights, SDPA, every image padded to the workload's cap |
| single | the same model, each image by itself without padding |
| rectangle | this encoder with every image padded to the longest of the pack |
| dense | this encoder with one block-diagonal mask over the pack |
| ceiling | the bare matrix products of the packed forward, with the same shapes, in the same rounds |
| auto | of `int8` alone: the packed forward in the dtype of `auto`, bfloat16 where the CPU multiplies it |
| openvino-…, onnxruntime-… | other engines (`--peers`, after `make peers`); their modules in `peers/` say how |
| before | the packed forward of another checkout (`--before`), by that checkout's own contender |

Each contender is a process, so that its memory can be measured. They take turns, in alternating order. Contenders from
`padded` on get pixels that are normalised and padded beforehand. A row for each:

    ms            of a forward of all images, median over the rounds
    over_packed   its time over that of `packed` in the same round, median over the rounds
    cosine        the least, over the images, to Transformers' float32 vectors
    padding       the share of the rows it computed that held no token
    gflops        of the image tokens alone, attention's included; a multiplication and its addition are two
    peak_mib      the most by which forwards raise the process's resident memory

A contender that cannot run says why. The bench stops if one of Packlight's or of Transformers' gives other vectors.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.forwards import contender
from loadtest.bench.forwards.cases import WORKLOADS, Case
from loadtest.bench.forwards.process import Contender, ContenderEnded, in_turn, least_cosine, started
from loadtest.bench.peers import environments
from loadtest.bench.servers.base_model import write_model

_CHECKOUT = Path(__file__).parents[2]
_FLOATS = ("bfloat16", "float32")
_DTYPES = (*_FLOATS, "int8")
_OURS = ("packed", "padded", "single", "rectangle", "dense", "ceiling", "auto")
_PEERS = {
    "openvino": ("openvino-batch", "openvino-streams", "openvino-single"),
    "onnxruntime": ("onnxruntime-batch", "onnxruntime-single"),
}
_KINDS = (*_OURS, *(kind for kinds in _PEERS.values() for kind in kinds))
# What computes in less than all of `_DTYPES`, by the first word of its name.
_DTYPES_OF = dict.fromkeys(_OURS[1:-2], _FLOATS) | {"onnxruntime": ("float32", "int8"), "auto": ("int8",)}
# Least cosines to the reference in float32.
_AGREE = {"bfloat16": 0.998, "float32": 0.999999, "int8": 0.9}
_MIB = 2**20

Row = dict[str, object]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender (default: 7)")
    parser.add_argument("--shapes", nargs="+", choices=contender.SHAPES, default=list(contender.SHAPES))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_FLOATS))
    parser.add_argument("--images", type=int, default=32, help="at most so many of each workload")
    parser.add_argument("--layers", type=int, default=0, help="blocks of the encoder (default: the shape's own)")
    parser.add_argument("--threads", type=int, default=0, help="of each contender (default: each one's own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="`processor` suits a shared machine, with one thread (default: wall)",
    )
    parser.add_argument("--without", nargs="+", choices=_KINDS[1:], default=[], help="contenders to leave out")
    parser.add_argument("--peers", nargs="+", choices=_PEERS, default=[], help="other engines, from `make peers`")
    parser.add_argument("--peers-dir", type=Path, default=environments.DEFAULT_FOLDER, help="where they are installed")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")


def measure(options: argparse.Namespace) -> list[Row]:
    """Rows for each shape, dtype and workload. Raises `RuntimeError` if a contender of ours gives other vectors."""
    if options.before and options.layers:
        raise SystemExit("forward: --before has the shape's own layers, so it cannot be compared with --layers")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes:
            bench = _Bench(options, Path(folder) / shape)
            for dtype in options.dtypes:
                for workload in options.workloads:
                    case = Case(shape, workload, dtype, options.images, options.layers)
                    rows += bench.measure(case)
    return rows


class _Bench:
    """The cases of one shape. folder: for its checkpoint, and for what is made of it and of the images."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder

    def measure(self, case: Case) -> list[Row]:
        self._prepare(case)
        rows: list[Row] = []
        contenders: dict[str, Contender] = {}
        cosines: dict[str, float] = {}
        with ExitStack() as running:
            for kind in kinds(case.dtype, self._options):
                sys.stderr.write(f"{case.shape} {case.dtype} {case.workload}: {kind} …\n")
                try:
                    each = running.enter_context(self._started(kind, case))
                except (ContenderEnded, environments.PeerUnavailable) as error:
                    rows.append(_named(case, kind) | {"cannot_run": str(error)})
                    continue
                if kind != "ceiling":
                    cosines[kind] = least_cosine(each.pooled, self._reference(case))
                    if problem := wrong(case.dtype, kind, cosines[kind]):
                        rows.append(_named(case, kind) | {"cannot_compare": problem})
                        continue
                contenders[kind] = each
            for number in range(self._options.rounds):
                for each in in_turn(contenders.values(), number):
                    each.run()
            peaks = {kind: each.finish() for kind, each in contenders.items()}
        packed = contenders.get("packed")
        return rows + [
            row_of(case, kind, each, packed) | _more(kind, cosines, peaks) for kind, each in contenders.items()
        ]

    def _prepare(self, case: Case) -> None:
        if not self._folder.exists():
            (self._folder / "exports").mkdir(parents=True)
            write_model(self._folder, case.config)
        if not self._inputs(case).exists():
            arrays: dict[str, Any] = contender.padded_inputs(contender.batch_of(case.grids), case.cap)
            np.savez(self._inputs(case), **arrays)

    def _inputs(self, case: Case) -> Path:
        return self._folder / f"{case.workload}.npz"

    def _reference(self, case: Case) -> NDArray[np.float32]:
        """Transformers' vectors in float32, each image by itself."""
        kept = self._folder / f"{case.workload}.npy"
        if not kept.exists():
            with self._started("single", replace(case, dtype="float32")) as reference:
                np.save(kept, reference.pooled)
        vectors: NDArray[np.float32] = np.load(kept)
        return vectors

    def _started(self, kind: str, case: Case) -> AbstractContextManager[Contender]:
        options = self._options
        checkout = (options.before if kind == "before" else _CHECKOUT).resolve()
        answer = self._folder / f"{kind}-answer.npy"
        job = {"dtype": case.dtype, "clock": options.clock, "answer": str(answer), "layers": case.layers}
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        if kind not in (*_OURS, "before"):
            job |= {"way": kind.partition("-")[2], "threads": options.threads, "model": str(self._folder)}
            job |= {"inputs": str(self._inputs(case)), "exports": str(self._folder / "exports")}
            return started(_peer_command(kind, job, options.peers_dir), environment, answer)
        job |= {"kind": "packed" if kind in ("auto", "before") else kind, "shape": case.shape}
        job |= {"dtype": "auto"} if kind == "auto" else {}
        job |= {"grids": case.grids, "cap": case.cap}
        if options.threads:
            environment["OMP_NUM_THREADS"] = str(options.threads)
        if kind == "ceiling":
            # Reuse memory that is mapped already: page faults are not part of a product.
            environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
        # The checkout's own contender: folders may have other names there.
        found = (checkout / "loadtest").rglob("contender.py")
        program = next(path for path in found if path.parent.name != "encoders")
        return started([sys.executable, str(program), json.dumps(job)], environment, answer)


def kinds(dtype: str, options: argparse.Namespace) -> list[str]:
    """The contenders of a case, in order. `packed` always is the first."""
    wanted = [*_OURS, *(kind for peer in options.peers for kind in _PEERS[peer])]
    able = [kind for kind in wanted if dtype in _DTYPES_OF.get(kind.partition("-")[0], _DTYPES)]
    return [kind for kind in able if kind not in options.without] + (["before"] if options.before else [])


def wrong(dtype: str, kind: str, cosine: float) -> str | None:
    """What is wrong with the vectors of a contender. Raises `RuntimeError` for ours and for Transformers'."""
    if cosine >= _AGREE[dtype]:
        return None
    problem = f"its vectors in {dtype} are not the reference's, cosine {cosine:.6f}"
    if kind in (*_OURS, "before"):
        raise RuntimeError(f"{kind}: {problem}")
    return problem


def _peer_command(kind: str, job: dict[str, object], folder: Path) -> list[str]:
    """Raises `PeerUnavailable`."""
    peer = kind.partition("-")[0]
    python = environments.environment(peer, folder) / "bin" / "python"
    return [str(python), "-m", f"loadtest.bench.peers.{peer}_forward", json.dumps(job)]


def _named(case: Case, kind: str) -> Row:
    return {"shape": case.shape, "dtype": case.dtype, "workload": case.workload, "contender": kind}


def row_of(case: Case, kind: str, each: Contender, packed: Contender | None) -> Row:
    row = _named(case, kind)
    row |= {"images": len(case.grids), "tokens": case.tokens, "ms": round(each.median_s * 1000, 1)}
    row["images_per_s"] = round(len(case.grids) / each.median_s, 2)
    if packed:
        ratios = [mine / ours for mine, ours in zip(each.seconds, packed.seconds, strict=True)]
        row["over_packed"] = round(statistics.median(ratios), 3)
    if each.computed_rows:
        row["padding"] = f"{1 - case.tokens / each.computed_rows:.1%}"
    return row | {"gflops": round(case.flop() / each.median_s / 1e9)}


def _more(kind: str, cosines: dict[str, float], peaks: dict[str, float]) -> Row:
    if kind == "ceiling":
        return {}
    return {"cosine": round(cosines[kind], 6), "peak_mib": round(peaks[kind] / _MIB)}
