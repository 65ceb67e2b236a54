"""What the settings change in a checkpoint, and how a device is warmed up."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from model.pack import pack
from model.running.runner import Runner
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.service.running import Recorder

# A model loaded as at a start, where nothing has imported torch and no garbage is collected: its vectors, how much is
# left of what it was loaded from, and whether torch's rules for tracing are still to be loaded.
STARTED = """
import gc, json, sys
gc.disable()
from service.loading import load_runner
from service.settings.settings import Settings
runner, _ = load_runner(Settings(devices="cpu", dtype="float32"))
checkpoints = sum(type(each).__name__ == "Checkpoint" for each in gc.get_objects())
from tests.service.test_loading import vectors
from model.deferred import RULES
print(json.dumps([vectors(runner), checkpoints, ["__getattr__" in vars(sys.modules[name]) for name in RULES]]))
"""
FIVE = "256x512,512x256,512x512,768x256,256x768"


def facts_of(**settings: Any) -> ModelFacts:
    return load_runner(Settings(devices="cpu", dtype="float32", **settings))[1]


def vectors(runner: Runner) -> list[list[float]]:
    grids = [(3, 5), (8, 8)]
    rows = [np.full((h * w, 3 * runner.patch_size**2), 7 * h, dtype=np.uint8) for h, w in grids]
    found: list[list[float]] = runner.run(pack(rows, grids)).pooled.tolist()
    return found


def test_a_start_leaves_out_what_forwards_need_not_and_keeps_no_weights_as_they_were_stored() -> None:
    command = [sys.executable, "-c", STARTED]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)

    found, checkpoints, deferred = json.loads(ended.stdout)

    assert found == vectors(load_runner(Settings(devices="cpu", dtype="float32"))[0])
    assert checkpoints == 0
    assert deferred == [True, True]


def test_settings_change_tiles_and_their_layouts() -> None:
    geometry = facts_of(anyres_tile=128, anyres_pinpoints="128x256,256x128").geometry
    assert (geometry.tile_grid, geometry.tile_layouts) == ((8, 8), ((1, 2), (2, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anyres_tile": 250}, r"anyres_tile .*: the side of a tile is 250; it is a multiple of 16 pixels"),
        ({"anyres_pinpoints": "256x512,300x300"}, r"anyres_pinpoints .*: a pinpoint is 300x300"),
        ({"anyres_pinpoints": "0x256"}, r"anyres_pinpoints .*: a pinpoint is 0x256"),
        ({"anyres_tile": 512, "anyres_pinpoints": "256x512"}, r"anyres_pinpoints .*multiples of a tile's, 512"),
    ],
)
def test_tiles_that_the_model_cannot_take_are_refused_by_the_name_of_the_setting(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        facts_of(**settings)


def test_the_fingerprint_depends_on_the_layouts_and_not_on_how_they_were_given() -> None:
    plain = facts_of().fingerprint
    assert facts_of(anyres_tile=256, anyres_pinpoints=FIVE).fingerprint == plain
    changes: list[dict[str, Any]] = [
        {"anyres_tile": 128}, {"anyres_pinpoints": "256x512"}, {"anyres_pinpoints": "512x256"}, {"feature_layer": -2},
    ]  # fmt: skip
    assert len({plain, *(facts_of(**change).fingerprint for change in changes)}) == 5


class Warmed:
    """Keeps the lengths that it was warmed up with."""

    texts = None

    def __init__(self) -> None:
        self.packs: list[Sequence[int]] = []

    def warm_up(self, lengths: Sequence[int]) -> None:
        self.packs.append(lengths)


@pytest.mark.parametrize(("image", "batch"), [(1024, 4096), (2880, 4096), (4096, 4096), (1000, 2999)])
def test_the_largest_pack_is_run_before_the_first_request(image: int, batch: int) -> None:
    runner = Warmed()
    warm_up(cast(Runner, runner), Limits(256, image, batch, 10 * batch))
    *others, fullest = runner.packs
    assert others == [[1], [256]]
    assert (sum(fullest), max(fullest)) == (batch, image)


def test_warming_up_runs_a_full_pack_and_measures_the_rate(loaded: tuple[Runner, ModelFacts]) -> None:
    runner, facts = loaded

    class Warmed(Recorder):
        texts = None

        def warm_up(self, lengths: list[int]) -> None:
            self.packs.append(list(lengths))
            runner.warm_up(lengths)

    recorder = Warmed(runner)
    limits = Limits.of(Settings(max_image_tokens=64, max_batch_tokens=256, default_max_tokens=16), facts)
    cost = warm_up(recorder, limits)  # type: ignore[arg-type]
    assert recorder.packs == [[1], [16], [64] * 4]
    assert (cost.tokens_per_s or 0) > 0
