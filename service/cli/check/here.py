"""A model that is loaded here: its canary, packs against single items, the reference, its rate and memory."""

import resource
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from service.canary.background import lacking_memory, recorded_of
from service.canary.files import Recording, canary_folder, read_recording, write_recording
from service.canary.jobs import picture_jobs
from service.canary.recorder import recorded, run_alone, subject_of, version
from service.cli.check.findings import Report, add_alone, add_canary, usual
from service.cli.check.reference import add_reference
from service.engine.client import ImageJob
from service.engine.device import Device, device_of
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner

# How long packs are timed, and how many at least.
_TIMED_S, _LEAST_PACKS = 3.0, 3


def check_here(settings: Settings) -> Report:
    """Raises `ModelError` and `SettingsError` if the model cannot be loaded."""
    runner, model = load_runner(settings)
    limits = Limits.of(settings, model)
    warm_up(runner, limits)
    device = device_of(runner)
    rate, memory = _rate(device, model, limits), _memory(runner)
    report = Report(f"{model.summary}\nfingerprint {model.fingerprint}")
    recording, why = recording_of(settings, model, limits)
    known = None if recording is None else recorded_of(recording, model)
    jobs = [*picture_jobs(model, limits), *(known.texts if known else ())]
    outputs = device.submit([each.job for each in jobs]).wait().vectors()
    together = {each.name: output.pooled for each, output in zip(jobs, outputs, strict=True)}
    tokens = {each.name: each.job.tokens for each in jobs}
    add_canary(report, together, known, tokens, why)
    add_alone(report, together, run_alone(runner, jobs), known.allowed if known else 0.02)
    if recording is not None:
        add_reference(report, settings, model, recording, limits)
    report.add("throughput", None, rate)
    report.add("memory", None, memory)
    return report


def recording_of(settings: Settings, model: ModelFacts, limits: Limits) -> tuple[Recording | None, str]:
    """What is recorded, or is recorded now; and why not."""
    subject, folder = subject_of(model, limits), canary_folder()
    if found := read_recording(folder, subject):
        return found, ""
    if lacks := lacking_memory(model.name, model.parameters):
        return None, lacks
    sys.stderr.write(f"recording what a CPU computes in float32, for {folder}\n")
    made = recorded(settings, subject)
    with suppress(OSError):
        write_recording(folder, subject, made, made_by=version())
    return made, ""


def _rate(device: Device, model: ModelFacts, limits: Limits) -> str:
    """The rate of packs that are as full as pictures of the usual size make them."""
    factor = model.geometry.grid_factor
    side = max(1, int(limits.default_max_tokens**0.5) // factor) * factor
    grid = model.geometry.tile_grid if model.geometry.fixed else (side, side)
    tokens = grid[0] * grid[1]
    count = max(1, limits.max_batch_tokens // tokens)
    gray = np.full((tokens, 3 * model.patch_size**2), 128, np.uint8)
    jobs = [ImageJob(gray, (grid,), tokens, None, want_tokens=False)] * min(count, limits.max_batch_items or count)
    times_s: list[float] = []
    end_s = time.monotonic() + _TIMED_S
    while len(times_s) < _LEAST_PACKS or time.monotonic() < end_s:
        began_s = time.monotonic()
        device.submit(jobs).wait()
        times_s.append(time.monotonic() - began_s)
    rate = len(jobs) / usual(times_s)
    return f"{rate:,.1f} images/s of {tokens} tokens, {rate * tokens:,.0f} tokens/s, in packs of {len(jobs)}"


def _memory(runner: "Runner") -> str:
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    words = f"{held / 1e9:.2f} GB of a process"
    if runner.device.type == "cuda":
        import torch

        words += f", {torch.cuda.max_memory_allocated(runner.device) / 1e9:.2f} GB of the device"
    return words
