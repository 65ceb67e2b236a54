"""`python -m loadtest.bench layouts`: what it compares, and what it refuses to report."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.bench import layouts
from model.checkpoint.load import load_checkpoint
from model.running.runner import Runner
from tests import pictures
from tests.reference import SMALL, random_pack, save_fixed

SIZES = [(48, 64), (300, 200), (33, 400), (128, 128), (16, 16), (200, 64)]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    layouts.add_options(parser)
    return parser.parse_args(["--devices", "cpu", "--dtype", "float32", "--rounds", "1", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for height, width in SIZES:
        data = pictures.save(pictures.picture(height, width), "PNG")
        (tmp_path / f"{height}x{width}.png").write_bytes(data)
    (tmp_path / "broken.png").write_bytes(data[:200])
    return tmp_path


def test_each_layout_runs_the_same_packs_and_pads_as_it_says(folder: Path) -> None:
    rows = layouts.measure(parsed("--folder", str(folder), "--images", "12", "--budgets", "16", "64"))
    assert [row["layout"] for row in rows] == ["packed", "to the longest", "to the cap"]
    assert len({(row["images"], row["packs"], row["tokens"]) for row in rows}) == 1
    packed, longest, cap = (float(str(row["padding"]).rstrip("%")) for row in rows)
    # A CPU fills the packed rows up to a multiple of 16.
    assert packed < 5 < longest <= cap
    assert cap == pytest.approx(100 * (1 - int(str(rows[0]["tokens"])) / (12 * 64)), abs=0.1)
    assert rows[0]["over_packed"] == 1.0


def test_the_pictures_of_the_two_packages_can_be_decoded() -> None:
    found = layouts.pictures(None)
    assert len(layouts.readable(found, 10**7)) == len(found) > 10


def test_layouts_that_disagree_are_not_reported() -> None:
    output = Runner(load_checkpoint("packlight-tiny"), dtype="float32").run(random_pack([(3, 4), (8, 2)]))
    other = replace(output, pooled=output.pooled * np.where(np.arange(output.pooled.shape[1]) % 50, 1, -1))
    layouts.check_agreement({"packed": [output], "to the cap": [output]}, 0.999999)
    with pytest.raises(SystemExit, match="packed and padded to the cap give different vectors"):
        layouts.check_agreement({"packed": [output], "to the cap": [other]}, 0.999999)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no picture that can be decoded"):
        layouts.measure(parsed("--folder", str(tmp_path)))


def test_a_model_of_one_grid_has_nothing_to_compare(tmp_path: Path) -> None:
    save_fixed(tmp_path, "siglip", SMALL | {"image_size": 64, "patch_size": 16})
    with pytest.raises(SystemExit, match="takes one size of picture"):
        layouts.measure(parsed("--model", str(tmp_path)))
