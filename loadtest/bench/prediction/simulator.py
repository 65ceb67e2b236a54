"""The simulator against real servers: its inputs are calibrated on one, then other loads are predicted.

Engines are processes in front of emulated accelerators, which take time and no processor (`--device emulated`), or
compute three blocks of the base width on a thread each (`--device cpu`). HTTP, decoding, admission and packing are the
server's own. The simulator gets the calibrated costs and the timetable of the requests, and nothing that was seen of
the run. Each round calibrates anew, since a machine's speed drifts. A capacity is what the costs say.

    rate, p95_ms     answers a second, and the 95th percentile of their latency, from when each was due
    ..._error        the prediction over the measurement, less 1, in percent
    others_cores     cores that programs beside the benchmark took
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from loadtest.bench.prediction.calibration import costs_of, decode_costs, kinds_of
from loadtest.bench.prediction.live import Device, Live, serving
from loadtest.simulate.crowd import Fate
from loadtest.simulate.inputs import Clients, Costs, Fleet, Host
from loadtest.simulate.simulation import Simulation
from loadtest.traffic import arrivals, mix
from loadtest.traffic.arrivals import Floats
from loadtest.traffic.corpus import Corpus, from_mix, order
from model.checkpoint import tiny
from model.encoders.siglip.naflex import NaFlexConfig

_THREE_BLOCKS = NaFlexConfig(width=768, depth=3, heads=12, mlp_width=3072)
_DISTINCT = 40
_WARM_S = 3.0
_RUNS = 5
_RATE_AIM, _P95_AIM = 10.0, 15.0
# Small pictures under budgets of all sizes: what decoding takes must not decide, since other programs delay it.
_PICTURES = {"content": "photo", "megapixels": [0.03, 0.3], "aspect": {"4:3": 50, "3:4": 30, "2:1": 20}}
_SINGLE: Any = {
    "name": "single",
    "classes": [
        {**_PICTURES, "name": "usual", "share": 70, "params": {"max_tokens": {"128": 30, "256": 50, "400": 20}}},
        {**_PICTURES, "name": "large", "share": 30, "params": {"max_tokens": {"576": 60, "1024": 40}}},
    ],
}
_SEVERAL: Any = {
    "name": "several",
    "classes": [
        {**_PICTURES, "name": "one", "share": 80, "params": {"max_tokens": {"100": 50, "300": 50}}},
        {
            **_PICTURES,
            "name": "many",
            "share": 20,
            "images": {"3": 50, "8": 50},
            "params": {"max_tokens": {"64": 50, "200": 50}},
        },
    ],
}
_MIXES = {content["name"]: mix.parse(content, source=content["name"]) for content in (_SINGLE, _SEVERAL)}
# Mix and share of the capacity; past 1 the server refuses.
_LOADS = (("single", 0.5), ("several", 0.8), ("single", 1.6))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each load, and of each calibration")
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", choices=get_args(Device), default="emulated")


@dataclass(frozen=True, slots=True)
class _Load:
    """Requests of a corpus, by number, and when each is due. What is due before `_WARM_S` does not count."""

    corpus: Corpus
    order: list[int]
    due_s: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class _Figures:
    """rate: answers a second. p95_s: of their latency."""

    rate: float
    p95_s: float

    @classmethod
    def of(cls, due_s: Floats, done_s: Floats, ok: NDArray[np.bool_], load: _Load) -> "_Figures":
        """The figures of requests by when they were due and done, and whether they were answered."""
        answered = ok & (done_s >= _WARM_S) & (done_s < load.seconds)
        counted = ok & (due_s >= _WARM_S)
        rate = int(answered.sum()) / (load.seconds - _WARM_S)
        return cls(rate, float(np.percentile((done_s - due_s)[counted], 95)))


def measure(given: Any) -> list[dict[str, object]]:
    known = [from_mix(_MIXES[name], count=_DISTINCT, seed=11) for name in ("single", "several")]
    unseen = {name: from_mix(_MIXES[name], count=_DISTINCT, seed=12) for name in dict(_LOADS)}
    cores = len(os.sched_getaffinity(0))
    decode = decode_costs(known)
    rows: list[dict[str, object]] = []
    errors: defaultdict[tuple[int, str, float], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.NAME if given.device == "emulated" else _three_blocks(Path(folder))
        for turn in range(given.rounds):
            for engines in given.engines:
                with serving(given.device, model, 1, known) as live:
                    costs = costs_of(live, known[0], known[1], decode, given.seconds)
                rows.append(_told({"round": turn, **_calibration_row(costs)}))
                with serving(given.device, model, engines, list(unseen.values())) as live:
                    for name, share in _LOADS:
                        host = Host(cores, engines, int(given.device == "cpu"), max_batch_tokens=4096)
                        load = _load(unseen[name], costs, host, share=share, seconds=given.seconds, seed=turn)
                        predicted, seen = _predicted(load, costs, host), _seen(live, load)
                        rows.append(_told({"round": turn, **_row(engines, name, share, predicted, seen)}))
                        errors[engines, name, share].append(_errors(predicted, seen[0]))
    return [*rows, *_summary(errors)]


def _told(row: dict[str, object]) -> dict[str, object]:
    """The row, which is shown at once: all of them take minutes."""
    sys.stderr.write(" ".join(f"{name}={value}" for name, value in row.items()) + "\n")
    return row


def _load(corpus: Corpus, costs: Costs, host: Host, *, share: float, seconds: float, seed: int) -> _Load:
    """At a share of what the costs say these engines can do: their own time, or that of the cores with all else."""
    kinds = kinds_of(corpus, costs)
    forward_s = statistics.fmean(
        costs.pack.seconds(kind.tokens, sum(picture.tokens**2 for picture in kind.pictures), 0.1) for kind in kinds
    )
    decode_s = statistics.fmean(sum(picture.decode_s for picture in kind.pictures) for kind in kinds)
    on_cores_s = decode_s + costs.http_s + forward_s * host.engine_threads
    capacity = min(host.engines / forward_s, host.cores / on_cores_s)
    due_s = arrivals.due_times("poisson", rate=capacity * share, duration_s=seconds, seed=seed + 100 * host.engines)
    return _Load(corpus, order(corpus, len(due_s), seed=seed), due_s, seconds)


def _predicted(load: _Load, costs: Costs, host: Host) -> _Figures:
    """The median of a few runs, which differ in how packs scatter."""
    figures = []
    for seed in range(_RUNS):
        simulation = Simulation(
            host=host, costs=costs, fleet=Fleet(), clients=Clients(tries=1, timeout_s=60.0),
            kinds=kinds_of(load.corpus, costs), seed=seed,
        )  # fmt: skip
        simulation.run(load.due_s, until_s=load.seconds, kind_numbers=load.order)
        crowd = simulation.crowd
        ok = np.array([fate is Fate.ANSWERED for fate in crowd.fates])
        figures.append(_Figures.of(load.due_s, np.array(crowd.done_s), ok, load))
    return _Figures(*(statistics.median(each) for each in zip(*map(astuple, figures), strict=True)))


def _seen(live: Live, load: _Load) -> tuple[_Figures, float]:
    """What the real server did, and the cores that others took."""
    run = live.send(load.corpus, load.order, seconds=load.seconds, due_s=load.due_s)
    records = run.records
    return _Figures.of(records.due_s, records.done_s, records.ok, load), run.others


def _errors(predicted: _Figures, seen: _Figures) -> tuple[float, float]:
    """The errors of the rate and of the 95th percentile, in percent."""
    return 100 * (predicted.rate / seen.rate - 1), 100 * (predicted.p95_s / seen.p95_s - 1)


def _row(
    engines: int, mix_name: str, share: float, predicted: _Figures, seen: tuple[_Figures, float]
) -> dict[str, object]:
    real, others = seen
    rate_error, p95_error = _errors(predicted, real)
    return {
        "engines": engines,
        "mix": mix_name,
        "of_capacity": share,
        "rate": round(real.rate, 2),
        "predicted_rate": round(predicted.rate, 2),
        "rate_error": round(rate_error, 1),
        "p95_ms": round(real.p95_s * 1e3),
        "predicted_p95_ms": round(predicted.p95_s * 1e3),
        "p95_error": round(p95_error, 1),
        "others_cores": round(others, 2),
    }


def _calibration_row(costs: Costs) -> dict[str, object]:
    pack = costs.pack
    middle = [round(float(value), 2) for value in np.percentile(pack.scatter, (10, 50, 90))]
    decode = {
        name: [round(cost.fixed_s * 1e3, 2), round(cost.s_per_megapixel * 1e3, 2)]
        for name, cost in costs.decode.items()
    }
    return {
        "a_us": round(pack.a * 1e6, 1),
        "b_ns": round(pack.b * 1e9, 2),
        "c_ms": round(pack.c * 1e3, 2),
        "scatter_p10_p50_p90": middle,
        "http_ms": round(costs.http_s * 1e3, 2),
        "http_image_ms": round(costs.http_image_s * 1e3, 2),
        "link_ms": round(costs.link_s * 1e3, 2),
        "decode_fixed_and_per_mp_ms": decode,
    }


def _summary(errors: Mapping[tuple[int, str, float], Sequence[tuple[float, float]]]) -> list[dict[str, object]]:
    """The median error of each load over the rounds, and the largest of these for each number of engines."""
    rows: list[dict[str, object]] = []
    worst: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for (engines, name, share), pairs in errors.items():
        rate, p95 = (statistics.median(each) for each in zip(*pairs, strict=True))
        worst[engines].append((abs(rate), abs(p95)))
        rows.append(
            {
                "median_of": f"{engines} engines, {name}, {share:g}",
                "rate_error": round(rate, 1),
                "p95_error": round(p95, 1),
            }
        )
    for engines, pairs in worst.items():
        rate, p95 = (max(each) for each in zip(*pairs, strict=True))
        held = rate <= _RATE_AIM and p95 <= _P95_AIM
        rows.append(
            {
                "engines": engines, "worst_rate_error": round(rate, 1), "worst_p95_error": round(p95, 1),
                "aims": f"{_RATE_AIM:g} and {_P95_AIM:g}", "verdict": "held" if held else "missed",
            }
        )  # fmt: skip
    return rows


def _three_blocks(folder: Path) -> str:
    save_file(tiny.seeded_tensors(_THREE_BLOCKS), folder / "model.safetensors")
    config = {"model_type": "siglip2_vision_model", "num_hidden_layers": _THREE_BLOCKS.depth}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)
