"""`packlight serve` in front of an emulated accelerator, of this checkout or of an earlier one that has none.

Everything but the device is the server's own. Run as a file: `server.py ORDER --option value …`, and by itself again
for each engine process. An order is JSON: see `Order`.
"""

import importlib.util
import json
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

_ORDER = "EMULATED_ACCELERATOR"
# By which processes are told apart, as those of a server without this file.
_ENGINE = "service.processes.engine_process"
_FIGURES = struct.Struct("=3d")


@dataclass(frozen=True, slots=True)
class Order:
    """shape: `base` or `so400m`. depth: packs under way. figures: a file that takes what the device has done. factor:
    how many times slower the device is."""

    shape: str
    depth: int
    figures: str
    factor: float = 1.0


_WIDTHS = {"base": 768, "so400m": 1152}


class Figures:
    """What a device has done so far, in a file that another process reads: busy seconds, packs and tokens."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FIGURES.size)

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(_FIGURES.size))

    def add(self, busy_s: float, tokens: int) -> None:
        before = self.read()
        _FIGURES.pack_into(self._map, 0, before[0] + busy_s, before[1] + 1, before[2] + tokens)

    def read(self) -> tuple[float, float, float]:
        return _FIGURES.unpack_from(self._map)


def command(order: Order, options: Sequence[str]) -> list[str]:
    """The command that starts a server. `PYTHONPATH` names its checkout."""
    return [sys.executable, __file__, json.dumps(asdict(order)), *options]


def _engine(descriptor: str) -> int:
    """`main` of an engine process."""
    order = Order(**json.loads(os.environ[_ORDER]))
    device, figures = _device(), Figures(order.figures)
    seconds = {"base": device.H200_BASE, "so400m": device.H200_SO400M}[order.shape].scaled(order.factor)
    vectors = partial(_counted, partial(device.sampled_vectors, width=_WIDTHS[order.shape]), seconds, figures)
    from service.processes import engine_process

    def load(settings: Any) -> Any:
        from service.loading import load_runner

        _, facts = load_runner(settings)
        width = _WIDTHS[order.shape]
        return device.EmulatedRunner(seconds, vectors=vectors), replace(facts, dim=width, token_dim=width)

    if importlib.util.find_spec("service.engine.device") is None:
        return engine_process.main(descriptor, load)
    return engine_process.main(
        descriptor, load, lambda runner: device.EmulatedDevice(seconds, depth=order.depth, vectors=vectors)
    )


def _counted(vectors: Any, seconds: Any, figures: Figures, batch: Any) -> Any:
    figures.add(seconds.of(batch), batch.tokens)
    return vectors(batch)


def _device() -> Any:
    """By the path of its file: an earlier checkout has none."""
    spec = importlib.util.spec_from_file_location("emulated_device", Path(__file__).with_name("device.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _serve(order: str, options: Sequence[str]) -> int:
    from service.processes.supervisor import supervise

    # In an earlier checkout all settings are one module.
    found = importlib.util.find_spec("service.settings")
    assert found
    whole = not found.submodule_search_locations
    names = ["service.settings"] * 2 if whole else ["service.settings.loading", "service.settings.settings"]
    loading, owner = map(importlib.import_module, names)
    os.environ[_ORDER] = order
    given = dict(zip(options[::2], options[1::2], strict=True))
    named = {name.removeprefix("--").replace("-", "_"): value for name, value in given.items()}
    if "canary_interval_s" in owner.Settings.model_fields:
        # The device has no model's vectors, and would be replaced for it.
        named["canary_interval_s"] = "0"
    settings = loading.load_settings(named)
    return supervise(settings, engine_command=[sys.executable, __file__, _ENGINE])


if __name__ == "__main__":
    # The folder of this file comes first, and holds modules with common names.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent.resolve()]
    sys.exit(_engine(sys.argv[2]) if sys.argv[1] == _ENGINE else _serve(sys.argv[1], sys.argv[2:]))
