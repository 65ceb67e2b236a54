"""An engine process whose runner fails in the way that the colour of an image says. Everything else is real."""

import ctypes
import itertools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch, PackedTexts
from model.running.output import RunnerOutput
from model.running.runner import Runner
from service.engine.canary import turns
from service.engine.canary.rule import Vectors
from service.engine.device import HostDevice
from service.limits import ModelFacts
from service.loading import load_runner
from service.processes import engine_process
from service.settings.settings import Settings
from tests.service.engine.canary.liars import Lie, told
from tests.service.threaded_device import ThreadedDevice

# What an image of one colour does to the device.
RAISES = (255, 0, 0)
KILLS = (0, 255, 0)
IS_NOT_A_NUMBER = (0, 0, 255)
HANGS = (255, 255, 0)
HANGS_WITH_THE_INTERPRETER = (255, 0, 255)
LOSES_THE_DEVICE = (0, 255, 255)
# As the one above, in a server of one process, and its event loop is stuck as well.
LOSES_THE_DEVICE_AND_THE_LOOP = (255, 255, 255)
# A pack of more tokens runs out of memory, except in the warm-up, whose images are gray.
MOST_TOKENS = 1500
GRAY = (128, 128, 128)
# A text of exactly so many tokens kills the engine.
KILLING_TEXT_TOKENS = 13


# Models that this process has loaded.
_numbers = itertools.count()


class Faulty(Runner):
    """A real runner, except for images of the colours above."""

    number: int
    before: Vectors

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        firsts = [tuple(batch.rows[start, :3].tolist()) for start in batch.cu_seqlens[:-1]]
        if batch.tokens > MOST_TOKENS and os.environ.get("TEST_LITTLE_MEMORY") and {*firsts} != {GRAY}:
            raise DeviceOutOfMemory("full")
        if RAISES in firsts:
            raise RuntimeError("a secret of the device")
        if KILLS in firsts:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANGS in firsts:
            time.sleep(1000)
        if HANGS_WITH_THE_INTERPRETER in firsts:
            ctypes.PyDLL(None).sleep(1000)
        if LOSES_THE_DEVICE_AND_THE_LOOP in firsts:
            os.kill(os.getpid(), signal.SIGUSR1)
        if LOSES_THE_DEVICE in firsts or LOSES_THE_DEVICE_AND_THE_LOOP in firsts:
            raise DeviceLost("an illegal memory access was encountered")
        output = super().run(batch, tokens=tokens)
        output.pooled[[first == IS_NOT_A_NUMBER for first in firsts]] = np.nan
        return self._told(output)

    def _told(self, output: RunnerOutput) -> RunnerOutput:
        """With other vectors, if the file TEST_LIE names a lie of this model."""
        before, self.before = self.__dict__.get("before"), output.pooled
        try:
            number, _, lie = Path(os.environ.get("TEST_LIE", "")).read_text().partition(" ")
        except OSError:
            return output
        if number not in (str(self.number), "any"):
            return output
        return replace(output, pooled=told(cast(Lie, lie), output.pooled, before))

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        if KILLING_TEXT_TOKENS in np.diff(batch.cu_seqlens):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run_texts(batch)


def load_faulty(settings: Settings) -> tuple[Runner, ModelFacts]:
    # The canary runs as often as a test says. By itself it would run once a minute where a round takes half a second.
    turns._MOST_SHARE = 1.0
    runner, facts = load_runner(settings)
    runner.__class__ = Faulty
    runner.__dict__["number"] = next(_numbers)
    return runner, facts


def main(descriptor: str) -> int:
    """With TEST_DEPTH=2 the device works by itself, with two packs under way."""
    works_by_itself = os.environ.get("TEST_DEPTH") == "2"
    return engine_process.main(descriptor, load_faulty, ThreadedDevice if works_by_itself else HostDevice)
