"""How fast each family of encoders is, compared with its own implementation: same weights, same dtype, one run.

| contender | what it is |
|---|---|
| ours | this checkout's encoder, from uint8 patch rows to vectors on the host |
| padded, packed, … | what the family's reference does with images of many sizes, from prepared pixels |
| siglip2 | our encoder of SigLIP 2 base on the same grids, to which `cost_over_siglip2` is relative |

Weights are random, at the widths of a published model and `--layers` of its blocks, since every block costs the same.
`cost_over_siglip2` is of whole models: both times are scaled to the published number of blocks. Contenders are
processes that take turns; a time is the median over rounds, and a ratio that of medians. `peak_mib` is the most by
which forwards raise a process's resident memory. The bench stops if contenders give different vectors. A verdict is
`failed` under 2 over a reference that pads and 1.1 over others on `mixed`, and under 1 on `uniform`.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.encoders.families import FAMILIES, Family, family_of
from loadtest.bench.forwards.cases import WORKLOADS
from loadtest.bench.forwards.process import Contender, in_turn, least_cosine, started

_BASELINE = next(iter(FAMILIES))
_DTYPES = ("float32", "bfloat16")
# Least cosines to a reference, which rounds in other places.
_AGREE = {"bfloat16": 0.999, "float32": 0.999999}
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """layers: blocks of both models. images: of the workload, from its start."""

    name: str
    workload: str
    dtype: str
    layers: int
    images: int

    @property
    def family(self) -> Family:
        return family_of(self.name)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Each side is rounded to what the family takes."""
        multiple = self.family.MULTIPLE
        sides = WORKLOADS[self.workload][: self.images]
        return [(_rounded(h, multiple), _rounded(w, multiple)) for h, w in sides]


def _rounded(side: int, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--workloads", nargs="+", choices=("mixed", "uniform"), default=["mixed", "uniform"])
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_DTYPES))
    parser.add_argument("--layers", type=int, default=4, help="blocks of every model (default: 4)")
    parser.add_argument("--images", type=int, default=16, help="images of a pack, up to 16 (default: 16)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender (default: 7)")
    parser.add_argument("--threads", type=int, help="threads of each contender (default: PyTorch's)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="`processor` suits a shared machine, with one thread (default: wall)",
    )


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each family, dtype and workload. Raises `RuntimeError` if contenders give different vectors."""
    return [
        _measure(Case(name, workload, dtype, options.layers, options.images), options)
        for name in options.families
        for dtype in options.dtypes
        for workload in options.workloads
    ]


def _measure(case: Case, options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as running:
        names = {case.name, _BASELINE} if case.workload == "uniform" else {case.name}
        folders = {name: Path(temporary) / name for name in names}
        for name, folder in folders.items():
            family_of(name).save(folder, case.layers)
        jobs = {kind: (case.name, kind) for kind in ("ours", *case.family.REFERENCES)}
        if _BASELINE in folders and case.name != _BASELINE:
            jobs[_BASELINE] = (_BASELINE, "ours")
        contenders: dict[str, Contender] = {}
        for label, (name, kind) in jobs.items():
            grids = case.grids if label != _BASELINE else WORKLOADS[case.workload][: case.images]
            job = {"family": name, "kind": kind, "folder": str(folders[name]), "dtype": case.dtype, "grids": grids}
            contenders[label] = running.enter_context(_started(job, Path(temporary) / f"{label}.npy", options))
        _check_agreement(case, contenders)
        for number in range(options.rounds):
            for each in in_turn(contenders.values(), number):
                each.run()
        peaks = {label: each.finish() for label, each in contenders.items()}
    return _row(case, contenders, peaks)


def _started(job: Mapping[str, object], answer: Path, options: argparse.Namespace) -> AbstractContextManager[Contender]:
    environment = dict(os.environ)
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    job = {**job, "clock": options.clock, "answer": str(answer)}
    command = [sys.executable, "-m", "loadtest.bench.encoders.contender", json.dumps(job)]
    return started(command, environment, answer)


def _check_agreement(case: Case, contenders: Mapping[str, Contender]) -> None:
    for kind in case.family.REFERENCES:
        cosine = least_cosine(contenders["ours"].pooled, contenders[kind].pooled)
        if not cosine >= _AGREE[case.dtype]:
            raise RuntimeError(f"{case}: ours and {kind} give different vectors, cosine {cosine:.6f}")


def _row(case: Case, contenders: Mapping[str, Contender], peaks: Mapping[str, float]) -> dict[str, object]:
    family, ours = case.family, contenders["ours"].median_s
    row: dict[str, object] = {
        "family": case.name,
        "shape": family.SHAPE,
        "layers": f"{case.layers}/{family.LAYERS}",
        "dtype": case.dtype,
        "workload": case.workload,
        "images": len(case.grids),
        "tokens": sum(h * w for h, w in case.grids),
    }
    failed = False
    for label, each in contenders.items():
        row[f"{label}_ms"] = round(each.median_s * 1000, 1)
        row[f"{label}_peak_mib"] = round(peaks[label] / _MIB)
        if label in family.REFERENCES:
            ratio = row[f"{label}_over_ours"] = round(each.median_s / ours, 2)
            failed |= ratio < _required(label, case.workload)
    if case.workload == "uniform":
        baseline = contenders.get(_BASELINE, contenders["ours"]).median_s
        whole, whole_baseline = ours * family.LAYERS, baseline * family_of(_BASELINE).LAYERS
        row["cost_over_siglip2"] = round(whole / whole_baseline, 2)
    return row | {"verdict": "failed" if failed else "ok"}


def _required(kind: str, workload: str) -> float:
    """The least time of a reference relative to ours."""
    if workload == "uniform":
        return 1.0
    return 2.0 if kind == "padded" else 1.1
