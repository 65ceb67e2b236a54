"""`python -m loadtest.bench gpu` on a CPU: what it needs, that its checks hold here, and that they can fail."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loadtest.bench import gpu
from loadtest.bench.forwards.contender import batch_of, runner_of
from loadtest.bench.forwards.wrapped import WrappedRunner
from model.pack import PackedBatch
from model.running.output import RunnerOutput

CPU = torch.device("cpu")
GRIDS = [(4, 5), (16, 16), (1, 3), (9, 12), (8, 8)]
ROOT = Path(__file__).parents[3]
# Everything but what a machine for it has to have, and what those packages ask for themselves, is not there.
BARE = """
import runpy, sys
there = {*sys.stdlib_module_names, "loadtest", "model", "torch", "torchgen", "numpy", "PIL", "safetensors"}
there |= {"filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "typing_extensions"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in there:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["bench", *sys.argv[1:]]
runpy.run_module("loadtest.bench", run_name="__main__", alter_sys=False)
"""


@pytest.mark.slow
def test_on_a_bare_machine_without_a_gpu_all_checks_hold_or_say_what_they_lack() -> None:
    options = ["gpu", "--device", "cpu", "--dtypes", "float32", "--workloads", "thumbnails", "--rounds", "1"]
    done = subprocess.run([sys.executable, "-c", BARE, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()
    checks = [row for row in rows if row.startswith("check=")]
    assert len(checks) == 7
    skipped = [row for row in checks if not row.endswith("verdict=ok")]
    assert sum("backend=varlen" in row or "check=graphs" in row for row in skipped) == 2
    assert all("verdict=skipped: " in row for row in skipped)
    assert [row.split("=")[0] for row in rows if row not in checks] == ["buckets"] * 4 + ["table"]


def test_a_forward_that_depends_on_its_neighbours_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    run = WrappedRunner.run

    def leak(runner: WrappedRunner, batch: PackedBatch) -> RunnerOutput:
        output = run(runner, batch)
        return replace(output, pooled=output.pooled + 1e-3 * len(batch.grids))

    monkeypatch.setattr(WrappedRunner, "run", leak)
    for within in (True, False):
        row = gpu.invariance("tiny", "float32", CPU, batch_of(GRIDS), within=within)
        assert (row["bits"], row["verdict"]) == (False, "failed")


def test_other_weights_than_the_reference_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*arguments: Any, **options: Any) -> Any:
        runner = runner_of(*arguments, **options)
        if "attention" not in options:
            with torch.no_grad():
                next(runner.encoder.parameters()).mul_(1.01)
        return runner

    assert gpu.parity("tiny", "float32", CPU, batch_of(GRIDS))["verdict"] == "ok"
    monkeypatch.setattr(gpu, "runner_of", other)
    assert gpu.parity("tiny", "float32", CPU, batch_of(GRIDS))["verdict"] == "failed"


def test_finer_ladders_have_more_buckets_and_waste_less() -> None:
    rows = list(gpu.buckets(GRIDS * 3))
    counts = [int(str(row["buckets"])) for row in rows]
    wastes = [float(str(row["padding_waste"]).rstrip("%")) for row in rows]
    assert counts == sorted(counts)
    assert wastes == sorted(wastes, reverse=True)
