"""One measurement in a process of its own, with the modules of this checkout or of an earlier one.

An earlier checkout embeds with `service.cli.offline`, which decoded a few files ahead of packs that its own thread ran.
"""

import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

TOKENS = 256
BATCH_TOKENS = 4096
_CHECKOUT = Path(__file__).parents[3]
_SAMPLE_S = 0.2

Figures = dict[str, Any]


def started(
    what: str,
    folder: Path,
    *,
    device: str = "cpu",
    pack_s: float = 0.0,
    decode: str = "exact",
    checkout: Path | None = None,
) -> Figures:
    """What the process says. device: `cpu` or `emulated`, where a full pack takes `pack_s`. Raises
    `CalledProcessError`."""
    order = {"what": what, "folder": str(folder), "device": device, "pack_s": pack_s, "decode": decode}
    command = [sys.executable, __file__, json.dumps(order)]
    environment = os.environ | {"PYTHONPATH": str((checkout or _CHECKOUT).resolve())}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd="/")
    return json.loads(answer.stdout.splitlines()[-1])  # type: ignore[no-any-return]


class _Parts:
    """A runner, and what decodes and bounds its packs."""

    def __init__(self, order: Figures) -> None:
        from model.images.reader import ImageReader
        from model.kernels.hardware import usable_cores
        from service.limits import Limits
        from service.loading import load_runner

        self.order, self.cores = order, usable_cores()
        self.runner: Any
        self.runner, self.facts = load_runner(_settings(devices="cpu"))
        if order["device"] == "emulated":
            self.runner = _device(order["pack_s"])
        self.limits = Limits(TOKENS, 1024, BATCH_TOKENS, 8 * BATCH_TOKENS)
        self.images = ImageReader(processes=self.cores, max_decode_pixels=80_000_000)
        self.files = sorted(Path(order["folder"]).rglob("*.*"))

    def job(self) -> Iterator[Any]:
        """The rows of all files, by the job of this process's checkout."""
        import service

        # By its folder: an installed Packlight would lend an earlier checkout the module that it lacks.
        if not Path(service.__path__[0], "jobs").is_dir():
            return self._earlier_job()
        from service.jobs.packs import Packs
        from service.jobs.pipeline import Pipeline
        from service.jobs.rows import Picture

        pipeline = Pipeline(Packs(_taking_packs(self.runner), self.limits), self.decoder(), self.cores)
        return pipeline.rows(Picture(str(path), path) for path in self.files)

    def _earlier_job(self) -> Iterator[Any]:
        offline: Any = importlib.import_module("service.cli.offline")
        reader = offline.FileReader(self.facts.geometry, self._budget(), "naflex", self.images, self.order["decode"])
        embedder = offline.FileEmbedder(self.runner, reader, self.limits, decode_threads=self.cores)
        return embedder.embed(self.files)  # type: ignore[no-any-return]

    def decoder(self) -> Any:
        from service.jobs.decoding import PictureDecoder, Recipe

        recipe = Recipe(self.facts.geometry, self._budget(), "naflex", self.order["decode"], "")
        return PictureDecoder(recipe, self.images)

    def _budget(self) -> Any:
        from model.sizing.budget import Budget

        return Budget.of_tokens(TOKENS, 16)


def _settings(**chosen: Any) -> Any:
    """As the checkout of this process has them: in an earlier one all settings are one module."""
    found = importlib.util.find_spec("service.settings")
    assert found
    name = "service.settings.settings" if found.submodule_search_locations else "service.settings"
    return importlib.import_module(name).Settings(**chosen)


def _taking_packs(runner: Any) -> Any:
    """The runner as the checkout of this process takes it: an earlier one has no `Device`."""
    if hasattr(runner, "submit") or importlib.util.find_spec("service.engine.device") is None:
        return runner
    from service.engine.device import device_of

    return device_of(runner)


def _device(pack_s: float) -> Any:
    """By the path of its file: an earlier checkout has none."""
    path = Path(__file__).parents[1] / "accelerator" / "device.py"
    spec = importlib.util.spec_from_file_location("emulated_device", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    full_s = module.H200_BASE.base_s + module.H200_BASE.token_s * BATCH_TOKENS
    full_s += module.H200_BASE.pair_s * BATCH_TOKENS * TOKENS
    seconds = module.H200_BASE.scaled(pack_s / full_s)
    if importlib.util.find_spec("service.engine.device") is None:
        return module.EmulatedRunner(seconds)
    return module.EmulatedDevice(seconds)


def _job(parts: _Parts) -> Figures:
    """Images a second from the first file to the last row. busy: of an emulated device."""
    _warm_up(parts)
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    images = sum(1 for _ in parts.job())
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    figures = {"images": images, "images_s": images / wall_s, "cpu_s": cpu_s, "cores": cpu_s / wall_s}
    return figures | ({"busy": parts.runner.busy_share} if parts.order["device"] == "emulated" else {})


def _warm_up(parts: _Parts) -> None:
    """What a device does once."""
    if parts.order["device"] == "cpu":
        parts.runner.warm_up([TOKENS] * (parts.limits.max_batch_tokens // TOKENS))


def _alone(parts: _Parts) -> Figures:
    """The processor time of decoding all files, and then of running them in full packs, with nothing beside."""
    from service.jobs.packs import Packs
    from service.jobs.rows import Decoded

    decoder = parts.decoder()
    _warm_up(parts)

    def decoded(path: Path) -> Any:
        return decoder.decode(str(path), path.read_bytes())

    packs, cpu_s = Packs(_taking_packs(parts.runner), parts.limits), 0.0
    with ThreadPoolExecutor(parts.cores) as pool:
        for start in range(0, len(parts.files), 256):  # some, so that not all rows are held
            began_s = time.process_time()
            rows = [row for row in pool.map(decoded, parts.files[start : start + 256]) if isinstance(row, Decoded)]
            for _ in packs.embed(rows):
                pass
            cpu_s += time.process_time() - began_s
    return {"cpu_s": cpu_s, "images": len(parts.files)}


def _memory(parts: _Parts) -> Figures:
    """The largest resident set in each quarter of a run, in megabytes, sampled five times a second."""
    ended = threading.Event()
    quarters, done = [0.0] * 4, 0

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            quarter = min(3, 4 * done // len(parts.files))
            quarters[quarter] = max(quarters[quarter], _resident_mb())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    for _ in parts.job():
        done += 1
    ended.set()
    sampler.join()
    return {"images": done, "quarters_mb": quarters}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


_MEASUREMENTS: dict[str, Callable[[_Parts], Figures]] = {"job": _job, "alone": _alone, "memory": _memory}


def main(arguments: Sequence[str]) -> None:
    # The folder of this file comes first, and holds modules with common names.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent.resolve()]
    order = json.loads(arguments[0])
    parts = _Parts(order)
    with closing(parts.images):
        print(json.dumps(_MEASUREMENTS[order["what"]](parts)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
