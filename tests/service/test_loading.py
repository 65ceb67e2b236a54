"""What the settings change in a checkpoint, and how a device is warmed up."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from model.running.runner import Runner
from service.engine.cost import FIRST_FIT_PACKS
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.service.running import Recorder

FIVE = "256x512,512x256,512x512,768x256,256x768"


def facts_of(**settings: Any) -> ModelFacts:
    return load_runner(Settings(devices="cpu", dtype="float32", **settings))[1]


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
    assert runner.packs[:2] == [[1], [256]]
    assert sum(runner.packs[2]) == batch
    assert max(runner.packs[2]) == image


def test_warming_up_runs_a_full_pack_and_measures_the_cost_of_others(
    loaded: tuple[Runner, ModelFacts],
) -> None:
    runner, facts = loaded

    class Warmed(Recorder):
        texts = None

        def warm_up(self, lengths: list[int]) -> None:
            self.packs.append(list(lengths))
            runner.warm_up(lengths)

    recorder = Warmed(runner)
    limits = Limits.of(Settings(max_image_tokens=64, max_batch_tokens=256, default_max_tokens=16), facts)
    cost = warm_up(recorder, limits)  # type: ignore[arg-type]
    assert (cost.tokens_per_s or 0) > 0
    assert [64] * 4 in recorder.packs
    assert max(map(sum, recorder.packs)) == 256
    measured = len(recorder.packs) - 3
    # How many there is time for depends on the machine.
    assert (cost.fit.packs if cost.fit else 0) == (measured if measured >= FIRST_FIT_PACKS else 0)
