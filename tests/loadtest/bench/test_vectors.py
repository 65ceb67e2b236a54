"""`python -m loadtest.bench vectors`: what it counts, and what it refuses to measure."""

import argparse
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.bench import vectors
from tests import pictures


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    vectors.add_options(parser)
    return parser.parse_args(arguments)


def test_recall_is_the_share_of_true_neighbours_found() -> None:
    truth = np.array([[9, 3, 2, 1], [1, 9, 2, 3], [1, 2, 9, 3], [3, 2, 1, 9]], float)
    assert vectors.recall(truth, truth, 1) == 1
    assert vectors.recall(truth, truth, 2) == 1
    # The first two rows find the second nearest first; the last two the farthest.
    found = np.array([[0, 2, 3, 1], [1, 0, 3, 2], [3, 2, 0, 1], [1, 2, 3, 0]], float)
    assert vectors.recall(truth, found, 1) == 0
    assert vectors.recall(truth, found, 2) == pytest.approx((2 + 2 + 1 + 1) / 8)


def test_nearness_is_what_stores_compute() -> None:
    stored = np.array([[3, 4], [4, 3], [-3, -4]], float)
    np.testing.assert_allclose(vectors.cosines(stored)[0], [1, 0.96, -1])
    np.testing.assert_allclose(vectors.distances(stored)[0], [0, -2, -100])
    np.testing.assert_allclose(vectors.differing_bits(np.array([[255], [254], [0]], float))[0], [0, -1, -8])


def test_scenes_cover_a_picture_without_its_plain_parts() -> None:
    picture = Image.new("RGB", (400, 200), "white")
    page = Image.open(io.BytesIO(pictures.photograph_file("page.png"))).convert("RGB")
    picture.paste(page.resize((200, 200)), (200, 0))
    found = list(vectors.scenes(picture, 8))
    assert [scene.size for scene in found] == [(100, 100)] * 4


def test_a_row_for_each_type_and_width(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(pictures.photograph_file("page.png"))
    (tmp_path / "rocket.jpg").write_bytes(pictures.photograph_file("rocket.jpg"))
    rows = vectors.measure(parsed("--folder", str(tmp_path), "--scenes", "16", "--dimensions", "32"))
    by_type = {(row["type"], row["dimensions"]): row for row in rows}
    assert len(by_type) == len(rows) == 16
    assert by_type["float", 256]["recall@1"] == by_type["float", 256]["recall@10"] == 1
    assert [by_type[kind, 256]["bytes"] for kind in ("float", "float16", "ubinary")] == [1024, 512, 32]
    assert by_type["ubinary", 32]["bytes"] == 4
    assert float(str(by_type["float", 32]["recall@10"])) < 1


def test_too_few_scenes_and_wrong_widths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(pictures.photograph_file("page.png"))
    with pytest.raises(SystemExit, match="scenes: 1; .* among more"):
        vectors.measure(parsed("--folder", str(tmp_path), "--scenes", "1"))
    (tmp_path / "rocket.jpg").write_bytes(pictures.photograph_file("rocket.jpg"))
    with pytest.raises(SystemExit, match="has 256 dimensions, and not 300"):
        vectors.measure(parsed("--folder", str(tmp_path), "--scenes", "24", "--dimensions", "300"))
