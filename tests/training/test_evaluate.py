"""`training.evaluate`: pictures are changed as documented, and figures count what their names say."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import pictures
from training import evaluate
from training.judging import exam, probes
from training.judging.baselines import hash_vectors, thumbnail_vectors
from training.judging.exam import judge, kind_accuracy, mean_cosine, recall_at_1, set_exam
from training.judging.real_pictures import Picture, PicturesMissing, built_in_pictures, folder_pictures, scene_boxes
from training.judging.report import GOALS, Goal, as_text, lines


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


@pytest.fixture
def few_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "_KIND_PICTURES", 3)


@pytest.mark.parametrize("size", [(200, 200), (300, 100), (64, 90)])
def test_a_crop_shows_a_quarter_to_three_fifths_in_nearly_the_pictures_ratio(size: tuple[int, int]) -> None:
    width, height = size
    for seed in range(100):
        left, top, right, bottom = probes.crop_box(size, random(seed))
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert 0.24 < (right - left) * (bottom - top) / (width * height) < 0.61
        assert 0.78 < (right - left) * height / ((bottom - top) * width) < 1.28


def test_letterboxing_keeps_every_pixel_of_the_picture() -> None:
    picture = pictures.picture(60, 90)
    for seed in range(8):
        boxed = probes.letterboxed(picture, random(seed))
        left, top = (boxed.width - 90) // 2, (boxed.height - 60) // 2
        assert np.array_equal(as_array(boxed.crop((left, top, left + 90, top + 60))), as_array(picture))
        assert boxed.size[0] == 90 or boxed.size[1] == 60
        assert 1.3 < boxed.width * boxed.height / (90 * 60) < 1.7


def test_squashing_changes_the_ratio_by_at_most_half_and_keeps_the_area() -> None:
    picture = pictures.picture(200, 300)
    changes = []
    for seed in range(20):
        squashed = probes.squashed(picture, random(seed))
        changes.append(squashed.width / squashed.height / 1.5)
        assert squashed.width * squashed.height == pytest.approx(200 * 300, rel=0.01)
    assert all(1.19 < max(change, 1 / change) < 1.51 for change in changes)
    assert min(changes) < 1 < max(changes)


def test_rotating_back_a_rotated_picture_restores_its_middle() -> None:
    # A photograph, as noise is lost when resampled twice.
    picture = built_in_pictures()[0].image
    for seed in range(6):
        rotated = probes.rotated(picture, random(seed))
        corners = {rotated.getpixel(at) for at in ((0, 0), (rotated.width - 1, rotated.height - 1))}
        assert len(corners) == 1
        off = []
        for angle in (-5, 5):
            back = rotated.rotate(angle, Image.Resampling.BICUBIC)
            middle = back.crop(
                (back.width // 2 - 16, back.height // 2 - 16, back.width // 2 + 16, back.height // 2 + 16)
            )
            left, top = picture.width // 2 - 16, picture.height // 2 - 16
            own = picture.crop((left, top, left + 32, top + 32))
            off.append(np.abs(as_array(middle).astype(int) - as_array(own)).mean())
        assert min(off) < 0.7 * max(off)


def test_every_probe_is_the_same_for_the_same_seed_and_gives_rgb() -> None:
    picture = pictures.picture(50, 70)
    for probe in probes.PROBES.values():
        one, other = probe(picture, random(3)), probe(picture, random(3))
        assert one.mode == "RGB"
        assert np.array_equal(as_array(one), as_array(other))
        assert not np.array_equal(as_array(one), as_array(picture))


def test_scenes_do_not_overlap_and_leave_out_uniform_parts() -> None:
    pixels = pictures.noise(400, 600)
    pixels[:, :200] = 90
    boxes = scene_boxes(Image.fromarray(pixels), 24)
    assert len(boxes) == 16  # 4 rows of 6, of which the first two are uniform
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_the_built_in_scenes_fill_a_gallery_and_all_differ() -> None:
    scenes = built_in_pictures()
    assert len(scenes) >= exam.LEAST_GALLERY
    assert len({scene.name for scene in scenes}) == len({scene.image.tobytes() for scene in scenes}) == len(scenes)
    assert {scene.kind for scene in scenes} == {"photo", "document"}


def test_baselines_give_vectors_of_length_1_and_a_hash_counts_equal_bits() -> None:
    several = [pictures.picture(40, 60, seed=seed) for seed in range(5)]
    for embed, width in ((thumbnail_vectors, 768), (hash_vectors, 64)):
        vectors = embed(several, 256)
        assert (vectors.shape, str(vectors.dtype)) == ((5, width), "float32")
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    bits = hash_vectors(several, 256) > 0
    equal = (bits[0] == bits[1]).sum()
    assert (hash_vectors(several, 256)[0] @ hash_vectors(several, 256)[1] + 1) * 32 == equal


def test_recall_is_1_if_all_are_found_and_chance_if_all_vectors_are_equal() -> None:
    vectors = np.eye(8, dtype=np.float32)
    assert recall_at_1(vectors[[5, 2]], vectors, [5, 2]) == 1
    assert recall_at_1(vectors[[5, 2]], vectors, [5, 3]) == 0.5
    constant = np.full((8, 3), 1 / np.sqrt(3), np.float32)
    assert recall_at_1(constant, constant, range(8)) == pytest.approx(1 / 8)


def test_the_mean_cosine_leaves_out_pairs_of_a_picture_with_itself() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert mean_cosine(vectors) == pytest.approx(1 / 3)
    assert mean_cosine(vectors[:1]) is None


def test_kinds_compare_only_pictures_of_different_sources() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    kinds = ["photo", "photo", "photo", "page"]
    assert kind_accuracy(vectors, kinds, list("abcd")) == {"photo": pytest.approx(2 / 3), "page": 0}
    assert kind_accuracy(vectors, kinds, list("aacd")) == {"photo": pytest.approx(2 / 3), "page": 0}
    assert kind_accuracy(vectors[[0, 1, 3]], ["photo", "photo", "page"], list("aad")) == {"photo": 0, "page": 0}


@pytest.mark.usefixtures("few_of_a_kind")
def test_judge_searches_each_named_picture_among_at_least_301() -> None:
    own, others = built_in_pictures()[:10], built_in_pictures()[10:]
    asked = set_exam(own, others)
    assert (len(asked.gallery), asked.judged) == (301, 10)
    assert {name: len(queries) for name, queries in asked.queries.items() if name != "crop"} == dict.fromkeys(
        [name for name in probes.PROBES if name != "crop"], 10
    )
    crops = [(place, image.size, image.tobytes()) for place, image in asked.queries["crop"]]
    assert sorted(place for place, *_ in crops) == sorted(list(range(10)) * 30)
    assert len(set(crops)) == 300
    seen: list[tuple[int, int]] = []

    def constant(several: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
        seen.append((len(several), max_tokens))
        return np.tile(np.array([[0.6, 0.8]], np.float32), (len(several), 1))

    figures = judge(constant, asked, max_tokens=100)
    assert figures.recall == dict.fromkeys(probes.PROBES, pytest.approx(1 / 301))
    assert figures.same_picture == pytest.approx(1)
    assert figures.different_pictures == pytest.approx(1)
    assert sum(count for count, _ in seen) == asked.embeddings()
    assert {tokens for _, tokens in seen} == {64, 100, 576}
    assert judge(thumbnail_vectors, asked, uses_budget=False).recall["recompressed"] == 1


@pytest.mark.usefixtures("few_of_a_kind")
def test_a_table_has_a_line_for_each_goal_and_each_kind() -> None:
    figures = judge(thumbnail_vectors, set_exam(built_in_pictures()[:5]), uses_budget=False)
    table = lines(figures, {"hash": figures})
    assert [line.name for line in table][: len(GOALS)] == list(GOALS)
    assert [line.met for line in table if line.name == "recompressed"] == [True]
    assert [line.met for line in table if line.name.startswith("same picture")] == [None]
    text = as_text("title", "model", table)
    assert text.count("\n") == 2 + len(table)
    assert text.startswith("title\n")


def test_a_goal_may_rise_with_the_best_baseline_but_never_falls() -> None:
    goal = Goal(0.85, share_of_error=0.5)
    assert goal.limit({"one": 0.2, "other": None}) == 0.85
    assert goal.limit({"one": 0.2, "other": 0.9}) == pytest.approx(0.95)
    assert goal.met(0.95, {"one": 0.2, "other": 0.8})
    assert not goal.met(0.88, {"one": 0.2, "other": 0.8})
    assert Goal(0.5, at_least=False).met(0.4, {})


def test_subfolders_are_read_and_documents_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.png", "receipt-1.JPG", "below/Scan.webp"):
        pictures.picture(3000 if name == "a.png" else 40, 30).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    found = folder_pictures(tmp_path)
    assert [(picture.name, picture.kind) for picture in found] == [
        ("a.png", "photo"), ("below/Scan.webp", "document"), ("receipt-1.JPG", "document"),
    ]  # fmt: skip
    assert found[0].image.size == (8, 768)
    with pytest.raises(PicturesMissing, match="no readable picture"):
        folder_pictures(tmp_path / "nowhere")


@pytest.fixture
def small_built_in(monkeypatch: pytest.MonkeyPatch) -> Sequence[Picture]:
    scenes = built_in_pictures()[:6]
    monkeypatch.setattr(evaluate, "built_in_pictures", lambda: scenes)
    return scenes


@pytest.mark.usefixtures("few_of_a_kind", "small_built_in")
@pytest.mark.slow
def test_the_command_prints_tables_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "figures.json"
    folder.mkdir()
    for seed in range(3):
        pictures.picture(48, 64, seed=seed).save(folder / f"{seed}.png")
    assert evaluate.main(["--folder", str(folder), "--json", str(out), "--max-tokens", "16"]) == 0
    text = capsys.readouterr().out
    assert "built-in pictures: 6 pictures (0 of documents) from 1 files, each looked for among 6" in text
    assert f"{folder}: 3 pictures (0 of documents) from 3 files, each looked for among 9" in text
    written = json.loads(out.read_text())
    assert (written["model"], written["max_tokens"], len(written["sets"])) == ("packlight-tiny", 16, 2)
    crop = written["sets"][1]["figures"][0]
    assert (crop["name"], set(crop["baselines"])) == ("crop", {"untrained", "thumbnail", "hash"})
    assert crop["goal"]["limit"] >= 0.85


@pytest.mark.usefixtures("few_of_a_kind", "small_built_in")
def test_a_command_that_cannot_run_says_why_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--model", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    assert evaluate.main(["--folder", str(tmp_path), "--max-tokens", "16"]) == 2
    assert "has no readable picture" in capsys.readouterr().err
