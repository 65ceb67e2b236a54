"""Whether the canary ever calls a right device a liar: a real model, thousands of packs, processors of several kinds.

The vectors are recorded once, on this processor as it is. Then packs run, each with pictures of random sizes and pixels
and with as much of the canary as fits, under each setting: as the processor is, as an older one that has AVX2 alone,
and in one thread. A row is `failed` if one round of the canary was. `drift` is the largest distance of a vector over
what is allowed, of all rounds: 1 would be a false alarm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from service.canary.background import recorded_of
from service.canary.files import read_recording, write_recording
from service.canary.jobs import picture_jobs
from service.canary.recorder import recorded, subject_of
from service.engine.canary.rule import Recorded, Vectors, largest_share
from service.engine.canary.turns import Canary, UntrueDevice
from service.engine.client import ImageJob, Job
from service.engine.device import HostDevice
from service.limits import Limits, ModelFacts
from service.loading import load_runner
from service.metrics import Metrics
from service.settings.settings import Settings

Row = dict[str, object]

_SETTINGS = {
    "as it is": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "one thread": {"OMP_NUM_THREADS": "1"},
}
# For any half of a round.
_ROOM_TOKENS = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packs", type=int, default=10_000, metavar="N", help="for each row (default: 10000)")
    parser.add_argument("--model", default="packlight-tiny", help="default: %(default)s")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], help="default: %(default)s; int8 needs VNNI"
    )
    parser.add_argument("--settings", nargs="+", default=[*_SETTINGS], choices=[*_SETTINGS], help="default: all")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each dtype and setting."""
    if options.folder:  # of the process that has the setting
        return [_row(options, dtype) for dtype in options.dtypes]
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes:
            settings = _settings(options.model, dtype)
            _, model = load_runner(settings)
            subject = subject_of(model, Limits.of(settings, model))
            write_recording(Path(folder), subject, recorded(settings, subject), made_by="bench")
        return [row for name in options.settings for row in _rows_under(name, options, folder)]


def _rows_under(name: str, options: argparse.Namespace, folder: str) -> list[Row]:
    """A processor's abilities are read when torch is loaded: each setting has a process of its own."""
    file = Path(folder) / "rows.json"
    command = [
        sys.executable, "-m", "loadtest.bench", "canary", "--folder", folder, "--json", str(file), "--model",
        options.model, "--packs", str(options.packs), "--dtypes", *options.dtypes,
    ]  # fmt: skip
    subprocess.run(command, env=os.environ | _SETTINGS[name], stdout=subprocess.DEVNULL, check=False)
    rows: list[Row] = json.loads(file.read_text())
    file.unlink()
    return [{"setting": name} | row for row in rows]


def _settings(model: str, dtype: str) -> Settings:
    return Settings(model=model, devices="cpu", dtype=dtype)


def _row(options: argparse.Namespace, dtype: str) -> Row:
    settings = _settings(options.model, dtype)
    runner, model = load_runner(settings)
    limits = Limits.of(settings, model)
    recording = read_recording(options.folder, subject_of(model, limits))
    assert recording is not None, "nothing was recorded"
    known = recorded_of(recording, model)
    metrics = Metrics()
    canary = Canary(picture_jobs(model, limits), _Kept(known), recorded=known, interval_s=1e-9, metrics=metrics)
    drift, fault = _run(HostDevice(runner), canary, known, model, options.packs)
    rounds = metrics.registry.get_sample_value("packlight_canaries_total", {"outcome": "passed"}) or 0.0
    row: Row = {"dtype": dtype, "packs": options.packs, "rounds": int(rounds), "drift": round(drift, 4)}
    return row | ({"verdict": "failed", "why": fault} if fault else {"verdict": "ok"})


def _run(
    device: HostDevice, canary: Canary, known: Recorded, model: ModelFacts, packs: int
) -> tuple[float, str | None]:
    """The largest drift, and what was said of a round that failed."""
    random, drift = np.random.default_rng(0), 0.0
    for _ in range(packs):
        sent = _sent(random, model)
        taken = canary.take(time.monotonic(), room_tokens=_ROOM_TOKENS)
        places = random.permutation(len(sent) + len(taken))
        jobs = [*sent, *(each.job for each in taken)]
        outputs = device.submit([jobs[place] for place in places]).wait().vectors()
        of = {int(place): output.pooled for place, output in zip(places, outputs, strict=True)}
        vectors = {each.name: of[len(sent) + number] for number, each in enumerate(taken)}
        drift = max(drift, largest_share(vectors, known))
        told: dict[str, Vectors | None] = dict(vectors)
        try:
            if told:
                canary.judge(told)
        except UntrueDevice as error:
            return drift, str(error)
    return drift, None


def _sent(random: np.random.Generator, model: ModelFacts) -> list[Job]:
    """Up to four pictures of noise, of up to 16 tokens where the model takes any."""
    jobs: list[Job] = []
    for _ in range(random.integers(0, 5)):
        factor = model.geometry.grid_factor
        grid = (int(random.integers(1, 5)) * factor, int(random.integers(1, 5)) * factor)
        if model.geometry.fixed:
            grid = model.geometry.tile_grid
        tokens = grid[0] * grid[1]
        rows = random.integers(0, 256, (tokens, 3 * model.patch_size**2), np.uint8)
        jobs.append(ImageJob(rows, (grid,), tokens, None, want_tokens=False))
    return jobs


class _Kept:
    """Implements `Records`."""

    pending = False

    def __init__(self, known: Recorded) -> None:
        self._known = known

    def read(self) -> Recorded:
        return self._known

    def close(self) -> None: ...
