"""The benchmarks of decoding, on pictures so small that they take no time."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from loadtest.bench import preprocess
from loadtest.bench.decoding import fast_decode, jpegs
from loadtest.bench.decoding.jpegs import _filled
from tests import pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(pictures.save(pictures.picture(64, 48), "JPEG"))
    (tmp_path / "b.jpg").write_bytes(pictures.save(pictures.picture(1500, 1200, seed=1), "JPEG"))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_the_jpegs_of_a_folder_are_told_apart_by_size(folder: Path) -> None:
    assert [(kind.kind, len(kind.pictures)) for kind in jpegs.of_folder(folder)] == [
        ("under 0.5 MP", 1),
        ("under 2 MP", 1),
    ]


def test_a_folder_without_any_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no JPEG"):
        jpegs.of_folder(tmp_path)


@pytest.mark.parametrize("shape", [(3, 5, 3), (3, 5), (40, 2, 3)])
def test_a_picture_is_filled_with_its_mirror_images(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    filled = _filled(pixels, (10, 13))
    assert filled.shape == (10, 13, *shape[2:])
    if shape[0] == 3:
        np.testing.assert_array_equal(filled[:3, :5], pixels)
        np.testing.assert_array_equal(filled[3:6, 5:10], pixels[::-1, ::-1])


def test_every_way_is_measured_by_kind_and_threads(folder: Path) -> None:
    rows = preprocess.measure(Namespace(folder=folder, rounds=1, seconds=0.01))
    assert {row["pictures"] for row in rows} == {"under 0.5 MP", "under 2 MP"}
    assert {row["threads"] for row in rows} >= {1}
    for row in rows:
        assert all(row[f"{way}_per_s"] > 0 for way in ("exact", "fast", "transformers"))  # type: ignore[operator]


@pytest.mark.slow
def test_what_fast_changes_is_measured(folder: Path) -> None:
    small, large = fast_decode.measure(Namespace(folder=folder))
    assert (small["unchanged"], small["largest_difference"], small["cosine_worst"]) == (1, 0, 1.0)
    assert large["unchanged"] == 0
    assert 0 < float(str(large["mean_difference"])) < 2
