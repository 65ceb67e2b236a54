"""`packlight serve` in front of an emulated accelerator: a pack takes time by the cost formula, and no processor.

Everything else is the server's own. `main` is that of an engine process.
"""

import sys
import time

import numpy as np

from model.child_process import module_command
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.processes import engine_process
from service.processes.supervisor import supervise
from service.settings.loading import load_settings
from service.settings.settings import Settings

# Seconds a token, a squared token and a pack: about a dozen images of 256 tokens a second. So slow that the processor
# has time for everything else even where other programs use it, and the simulator is not told.
COST = (2.5e-4, 5e-8, 0.012)


class Emulated(Runner):
    """Every image gets the same vector, as late as a device would have it."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        end_s = time.monotonic() + emulated_s(np.diff(batch.cu_seqlens).tolist())
        pooled = np.ones((len(batch.cu_seqlens) - 1, self.width), np.float32)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return RunnerOutput(pooled, None, batch.tokens)


def emulated_s(lengths: list[int]) -> float:
    """Seconds of a pack whose images have so many tokens each."""
    a, b, c = COST
    return a * sum(lengths) + b * sum(length**2 for length in lengths) + c


def load_emulated(settings: Settings) -> tuple[Runner, ModelFacts]:
    runner, facts = load_runner(settings)
    runner.__class__ = Emulated
    return runner, facts


def main(descriptor: str) -> int:
    return engine_process.main(descriptor, load_emulated)


if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    settings = load_settings({name.removeprefix("--").replace("-", "_"): value for name, value in options.items()})
    sys.exit(supervise(settings, engine_command=module_command("loadtest.bench.prediction.emulated")))
