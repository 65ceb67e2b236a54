"""`layout=padded` from one end to the other: the packed answers, and its padding counted wherever tokens are."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.running.runner import Runner
from service.__main__ import main
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings import Settings, SettingsError, load_settings
from tests import pictures
from tests.reference import SMALL, save_fixed
from tests.service.running import Running, error_of, load_npy, serving

SIZES = [(48, 64), (300, 200), (33, 400), (128, 128), (16, 16), (200, 64)]
IMAGES = [pictures.save(pictures.picture(height, width), "PNG") for height, width in SIZES]
CAPS = [64, 256, 100, 7, 30, 256]
ACCEPT = {"Accept": "application/x-npy"}


@pytest.fixture(scope="module")
def padded() -> Iterator[Running]:
    """Images wait for one another for a moment, so that they share packs; two of the largest fill one."""
    loaded = load_runner(Settings(devices="cpu", dtype="float32", layout="padded", anyres_tile=64))
    with serving(loaded, max_wait_ms=300, max_image_tokens=256, max_batch_tokens=600) as running:
        yield running


def rectangle(lengths: list[int]) -> int:
    return len(lengths) * max(lengths)


def test_answers_are_those_of_packs_and_every_row_of_padding_is_counted(
    padded: Running, loaded: tuple[Runner, ModelFacts]
) -> None:
    def vectors(server: Running) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        files = [("image", ("x.png", image, "image/png")) for image in IMAGES]
        answers = [
            server.http.post("/embed", files=files, data={"max_tokens": str(cap)}, headers=ACCEPT) for cap in CAPS
        ]
        return [load_npy(answer.raise_for_status().content) for answer in answers]

    got = vectors(padded)
    with serving(loaded) as packed:
        for ours, theirs in zip(got, vectors(packed), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    packs, computed = padded.runner.packs, padded.runner.computed
    assert any(len(set(lengths)) > 1 for lengths in packs), "no two images of other lengths shared a pack"
    assert all(rectangle(lengths) <= 600 for lengths in packs)
    assert computed == [rectangle(lengths) + -rectangle(lengths) % 16 for lengths in packs]
    tokens = sum(map(sum, packs))
    assert padded.metric("tokens_total", kind="image") == padded.metric("charged_tokens_total") == tokens
    assert padded.metric("tokens_total", kind="padding") == sum(computed) - tokens
    waste = sum(1 - sum(lengths) / rows for lengths, rows in zip(packs, computed, strict=True))
    assert padded.metric("padding_waste_ratio_sum") == pytest.approx(waste)
    assert padded.metric("padding_avoided_tokens_total", layout="pad_to_longest") == 0
    assert padded.metric("padding_avoided_tokens_total", layout="pad_to_cap") > 0


def test_tiles_of_an_image_share_the_rectangle(padded: Running) -> None:
    before = len(padded.runner.packs)
    computed = sum(padded.runner.computed)
    answer = padded.embed(IMAGES[5], strategy="anyres", output="segments")
    segments = answer.json()["data"][0]["segments"]
    assert len(segments) > 2
    assert padded.runner.packs[before:] == [[16] * len(segments)]
    assert sum(padded.runner.computed) == computed + 16 * len(segments)


def test_it_says_how_it_lays_out(padded: Running) -> None:
    model = padded.http.get("/info").json()["model"]
    assert (model["layout"], model["attention"]) == ("padded", "padded")
    labels = {"version": "0.1.0", "model": "packlight-tiny", "dtype": "float32", "device": "cpu"}
    samples = [s for metric in padded.metrics.registry.collect() for s in metric.samples if "build_info" in s.name]
    assert [sample.labels | labels for sample in samples] == [labels | {"layout": "padded"}]


def test_a_plan_knows_no_milliseconds_since_a_picture_costs_what_it_is_padded_to(padded: Running) -> None:
    group = {"height": 48, "width": 64, "count": 1, "task": "photo"}
    answer = padded.http.post("/plan", json={"workload": [group], "budget_ms": 5})
    assert error_of(answer) == (422, "invalid", "budget_ms", None)
    assert padded.http.post("/plan", json={"workload": [group], "budget_tokens": 999}).json()["cost"] is None


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_a_model_of_one_grid_has_nothing_to_pad(tmp_path: Path, kind: str) -> None:
    save_fixed(tmp_path, kind, SMALL | {"image_size": 64, "patch_size": 16})
    with pytest.raises(SettingsError, match=r"layout \(PACKLIGHT_LAYOUT, --layout\) is padded, .* one size of picture"):
        load_runner(Settings(model=str(tmp_path), devices="cpu", layout="padded"))


def test_an_attention_that_is_named_is_refused_beside_it() -> None:
    with pytest.raises(SettingsError, match="attention is segmentwise, which is for layout=packed"):
        load_settings({"layout": "padded", "attention": "segmentwise"}, names=())


def test_the_command_line_embeds_padded_too_and_says_what_it_wasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        path.write_bytes(image)
    said, arrays = {}, []
    for layout in ("packed", "padded"):
        out = tmp_path / f"{layout}.npy"
        options = ["--layout", layout, "--dtype", "float32", "--strategy", "native", "--out", str(out)]
        limits = ["--max-batch-tokens", "512", "--max-image-tokens", "256"]
        assert main(["embed", *map(str, paths), *options, *limits]) == 0
        found = re.search(r"(\d+) tokens in (\d+) packs, padding waste ([\d.]+)%", capsys.readouterr().err)
        assert found
        said[layout] = [float(value) for value in found.groups()]
        arrays.append(np.load(out))
    np.testing.assert_allclose(arrays[0], arrays[1], rtol=0, atol=1e-5)
    assert said["packed"][0] == said["padded"][0]
    # 12 and 228 tokens are a rectangle of 456, on a CPU of 464 rows, which 50 more would make too large; 50, 64, 1 and
    # 48 are one of 256.
    assert said["padded"][1:] == [2, pytest.approx(100 * (1 - 403 / (464 + 256)), abs=0.1)]
