"""`packlight embed` and `packlight info`, run as a user does."""

import io
import json
import os
import sys
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors import safe_open

from model.images.decode import decode_patches
from model.images.reader import ImageReader
from model.pack import pack
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Strategy
from model.sizing.plan import plan_image
from service.__main__ import main
from service.engine.device import HostDevice
from service.jobs.decoding import PictureDecoder, Recipe
from service.jobs.packs import Packs
from service.jobs.pipeline import Pipeline
from service.jobs.rows import Embedded, Picture
from service.jobs.sinks.kinds import open_sink
from service.limits import Limits, ModelFacts
from service.loading import load_runner
from service.requests.results import normalized
from service.settings.settings import Settings
from tests import pictures
from tests.reference import SMALL, save_fixed

PLAIN = (".npy", ".safetensors", ".jsonl")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    sizes = [(120, 90), (40, 200), (64, 64)]
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for path, (width, height) in zip(paths, sizes, strict=True):
        path.write_bytes(pictures.save(pictures.picture(height, width), "PNG"))
    return paths


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_line_a_file_and_a_summary(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "embed", *photos, "--max-tokens", 64)
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert "90×120 px" in lines[0]
    assert "64×64 px      8×8 =   64 tokens" in lines[2]
    assert "3 embedded" in err
    assert " tokens in 1 pack, " in err


def test_the_summary_counts_packs_in_the_plural(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "embed", *photos, "--max-tokens", 64, "--max-batch-tokens", 64)
    assert " tokens in 3 packs, " in err


def test_a_bad_file_is_named_the_others_are_done_and_the_status_says_so(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, missing = tmp_path / "notes.jpg", tmp_path / "missing.jpg"
    text.write_text("not a picture")
    status, out, err = run(capsys, "embed", photos[0], text, missing, photos[1], "--max-tokens", 16)
    assert status == 1
    assert [line.split()[-1] for line in out.splitlines()] == [str(photos[0]), str(photos[1])]
    assert f"{text}: not an image" in err
    assert f"{missing}: No such file" in err
    assert "2 failed" in err


def test_the_most_bytes_ahead_bound_what_a_job_reads(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "embed", photos[0], "--out", tmp_path / "x.npy", "--ahead-bytes", 100)
    assert status == 1
    assert "more than 100 bytes; a larger --ahead-bytes reads it" in err


def test_a_table_is_not_replaced_by_its_own_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_ = tmp_path / "x.jsonl"
    list_.write_text("a.jpg\n")
    status, _, err = run(capsys, "embed", "--list", list_, "--out", list_)
    assert (status, list_.read_text()) == (2, "a.jpg\n")
    assert "is a source, and --out would replace it" in err


def test_an_output_that_is_full_closed_or_gone_is_told_by_the_exit_status(
    photos: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def status() -> int:
        return main(["embed", str(photos[0]), "--max-tokens", "16"])

    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        assert status() == 2
    assert "packlight: standard output cannot be written: No space left on device\n" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        assert status() == 2
    assert "packlight: standard output is closed\n" in capsys.readouterr().err
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit, match="141"):
            status()


@pytest.mark.parametrize("suffix", [".npy", ".lance"])
def test_a_link_to_the_output_stays_one(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """It may lead to a larger disk."""
    link, real = tmp_path / f"x{suffix}", tmp_path / "disk" / f"real{suffix}"
    real.parent.mkdir()
    link.symlink_to(real)
    for _ in range(2):
        assert run(capsys, "embed", photos[0], "--max-tokens", 16, "--out", link)[0] == 0
        assert link.is_symlink()
        assert list(real.parent.iterdir()) == [real]
    assert not list(tmp_path.glob(".x*"))


def test_all_three_kinds_of_file_hold_the_same_vectors(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("npy", "safetensors", "jsonl"):
        assert run(capsys, "embed", *photos, "--out", tmp_path / f"x.{suffix}", "--max-tokens", 32)[0] == 0
    array = np.load(tmp_path / "x.npy")
    assert (array.shape, str(array.dtype)) == ((3, 256), "float32")
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), array)
    assert [line["file"] for line in lines] == [str(photo) for photo in photos]
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert np.array_equal(file.get_tensor("embeddings"), array)
        assert file.get_tensor("grids").prod(axis=1).tolist() == [line["tokens"] for line in lines]
        assert json.loads(file.metadata()["files"]) == [str(photo) for photo in photos]


def test_all_kinds_of_file_are_readable_by_the_same_users(tmp_path: Path) -> None:
    for suffix in (".parquet", *PLAIN):
        with open_sink(tmp_path / f"x{suffix}", width=4, fingerprint=""):
            pass
    assert len({file.stat().st_mode for file in tmp_path.glob("x.*")}) == 1


@pytest.mark.parametrize("suffix", [".parquet", *PLAIN])
def test_an_output_file_that_is_a_folder_is_an_os_error(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"x{suffix}"
    folder.mkdir()
    with pytest.raises(IsADirectoryError), open_sink(folder, width=4, fingerprint=""):
        pass
    assert list(tmp_path.iterdir()) == [folder]


def test_a_small_pack_limit_changes_the_packs_and_not_a_bit_of_the_vectors(photos: list[Path]) -> None:
    runner, facts = load_runner(Settings(devices="cpu"))
    together, apart = (_embed(runner, facts, photos, limits(most)) for most in (4096, 64))
    assert (together[1], apart[1]) == (1, 3)
    for one, other in zip(together[0], apart[0], strict=True):
        assert np.array_equal(one.embedding, other.embedding)


def limits(max_batch_tokens: int) -> Limits:
    return Limits(64, 64, max_batch_tokens, 8 * max_batch_tokens)


def test_files_are_packed_by_the_scheduler_and_come_out_in_their_order(tmp_path: Path) -> None:
    """Of 36, 64 and 28 tokens, taken in order, no two would share a pack of 64."""
    runner, facts = load_runner(Settings(devices="cpu", dtype="float32"))
    paths = []
    for number, (height, width) in enumerate([(96, 96), (128, 128), (64, 112)]):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(pictures.save(pictures.picture(height, width, seed=number), "PNG"))
    rows, packs = _embed(runner, facts, paths, limits(64), "native")
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert packs == 2


def test_every_file_has_its_own_pack_if_the_limits_say_so(photos: list[Path]) -> None:
    runner, facts = load_runner(Settings(devices="cpu", dtype="float32"))
    rows, packs = _embed(runner, facts, photos, replace(limits(4096), max_batch_items=1))
    assert [row.path for row in rows] == [str(path) for path in photos]
    assert packs == len(photos)


def _embed(
    runner: Runner, facts: ModelFacts, paths: list[Path], limits: Limits, strategy: Strategy = "naflex"
) -> tuple[list[Embedded], int]:
    recipe = Recipe.of(facts, limits, strategy=strategy, max_tokens=64)
    with closing(ImageReader(processes=1, max_decode_pixels=10**6)) as images:
        pipeline = Pipeline(Packs(HostDevice(runner), limits), PictureDecoder(recipe, images), decode_threads=2)
        rows = list(pipeline.rows(Picture(str(path), path) for path in paths))
    return [row for row in rows if isinstance(row, Embedded)], pipeline.packs.count.packs


def test_an_image_of_several_segments_has_the_mean_of_their_vectors(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.jsonl"
    status, _, err = run(capsys, "embed", *photos, "--strategy", "anyres", "--out", out)
    assert (status, "3 embedded" in err) == (0, True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [768, 768, 768]
    assert lines[1]["segments"][0] == {
        "grid": [16, 16], "kind": "thumbnail", "row": 0, "column": 0, "tokens": 256, "offset": 0,
    }  # fmt: skip
    assert [(s["kind"], s["row"], s["column"], s["offset"]) for s in lines[1]["segments"][1:]] == [
        ("tile", 0, 0, 256), ("tile", 0, 1, 512),
    ]  # fmt: skip

    runner, facts = load_runner(Settings(devices="cpu"))
    data = photos[1].read_bytes()
    plan = plan_image((200, 40), geometry=facts.geometry, budget=Budget.of_tokens(1024, 16), strategy="anyres")
    _, rows = decode_patches(data, plan, geometry=facts.geometry, max_decode_pixels=10**6)
    alone = [runner.run(pack([rows[start : start + 256]], [(16, 16)])).pooled[0] for start in plan.offsets[:-1]]
    mean = normalized(np.stack(alone)).mean(axis=0, keepdims=True)
    assert np.array_equal(np.array(lines[1]["embedding"], np.float32), normalized(mean)[0])


def test_native_keeps_the_size_unless_min_pixels_is_given(
    photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "4×4 =   16 tokens" in run(capsys, "embed", photos[2], "--strategy", "native")[1]
    assert "8×8 =   64 tokens" in run(capsys, "embed", photos[2], "--strategy", "native", "--min-pixels", 128 * 128)[1]
    status, _, err = run(capsys, "embed", photos[2], "--min-pixels", 128 * 128)
    assert status == 2
    assert "packlight: min_pixels has a meaning for strategy=native only, not naflex\n" in err


def test_max_pixels_bounds_the_area_after_resizing(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "embed", photos[2], "--max-pixels", 80 * 80)
    assert "5×5 =   25 tokens" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "x.jpg", "--max-pixels", "255"], "max_pixels is 255"),
        (["embed", "x.jpg", "--column", "image"], "--column is for tables, and no source is one"),
        (["embed", "x.jpg", "--ray-cpus", "2"], "--ray-runners and --ray-cpus are for a job on Ray"),
        (["embed", "x.jpg", "--ray-runners", "2"], "--ray-runners and --ray-cpus are for a job on Ray"),
        (["embed", "x.jpg", "--out", "x.npy", "--ray", "--top", "2"], "--top says how many neighbors to print"),
        (["embed", "x.jpg", "--out", "x.npy", "--ray", "--decode-threads", "2"], "--decode-threads is for one host"),
        (["info", "--model", "./nowhere"], "no such folder"),
        (["info", "--dtype", "int4"], "PACKLIGHT_DTYPE"),
        (["info", "--attention", "varlen", "--devices", "cpu"], "needs a CUDA device"),
    ],
)
def test_what_cannot_start_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_a_file_over_the_bytes_that_are_held_ahead_is_named(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "embed", photos[0], "--out", tmp_path / "x.npy", "--ahead-bytes", "50")
    assert status == 1
    assert "the file holds more than 50 bytes; a larger --ahead-bytes reads it" in err


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_what_runs_on_ray_says_which_extra_brings_it(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "embed", photos[0], "--out", tmp_path / "x.npy", "--ray")
    assert status == 2
    assert err == "packlight: --ray needs the package ray, which is not installed: pip install 'packlight[ray]'\n"
    status, _, err = run(capsys, "embed", photos[0], "--ray")
    assert (status, err) == (
        2,
        "packlight: --ray needs --out, and does not take --html, --neighbors or --text\n",
    )


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A model of one grid of 4 × 4 patches, with a projection."""
    folder = tmp_path / "clip"
    save_fixed(folder, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    preprocessor = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def test_a_model_of_one_grid_embeds_with_its_own_strategies(
    photos: list[Path], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "embed", *photos, "--model", clip)
    assert [line.split("px")[1].split("tokens")[0].split() for line in out.splitlines()] == [["4×4", "=", "16"]] * 3
    _, out, _ = run(capsys, "embed", *photos, "--model", clip, "--strategy", "anyres")
    grids = [line.split("px")[1].split("=")[0].strip() for line in out.splitlines()]
    assert grids == ["5×(4×4)", "4×(4×4)", "3×(4×4)"]
    status, _, err = run(capsys, "embed", *photos, "--model", clip, "--strategy", "naflex")
    assert (status, err.splitlines()[-1]) == (
        2, "packlight: the model does not take strategy=naflex; it takes square, anyres",
    )  # fmt: skip


def test_columns_are_as_wide_as_their_content(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "embed", *photos, "--strategy", "anyres")
    assert "3×(16×16) =  768 tokens" in out
    assert len({line.index("tokens") for line in out.splitlines()}) == 1


def test_a_safetensors_file_says_where_each_images_segments_are(
    photos: list[Path], tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.safetensors"
    run(capsys, "embed", *photos, "--model", clip, "--strategy", "anyres", "--out", out)
    with safe_open(out, "numpy") as file:
        assert file.get_tensor("cu_segments").tolist() == [0, 5, 9, 12]
        assert file.get_tensor("segment_grids").tolist() == [[4, 4]] * 12
        assert file.get_tensor("embeddings").shape == (3, 40)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--anyres-pinpoints", "64x100", "--anyres-pinpoints): a pinpoint is 64x100; both sides are multiples of a"),
        ("--anyres-pinpoints", "64", "--anyres-pinpoints) is '64': '64' is not a pinpoint; sizes look like"),
        ("--anyres-tile", "96", "--anyres-tile): the tile of a fixed model is its input, 64 pixels, not 96"),
        ("--feature-layer", "5", "feature_layer is 5"),
        ("--feature-layer", "-4", "feature_layer is -4"),
        ("--max-image-tokens", "15", "max_image_tokens (15) is under the 16 tokens"),
        ("--default-max-tokens", "9", "default_max_tokens (9) is under the 16 tokens"),
    ],
)
def test_what_the_model_cannot_do_is_one_line_and_status_2(
    photos: list[Path], clip: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    status, out, err = run(capsys, "embed", photos[0], "--model", clip, option, value)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line


def test_info_shows_the_widths_of_tokens_and_embeddings(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run(capsys, "info", "--model", clip, "--anyres-pinpoints", "64x128")[1])
    assert (facts["dim"], facts["token_dim"], facts["default_max_tokens"]) == (40, 96, 16)
    assert facts["geometry"]["strategies"] == ["square", "anyres"]
    assert facts["geometry"]["pinpoints"] == [[64, 128]]


def test_an_unknown_output_format_is_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "embed", "x.jpg", "--out", "x.csv")
    assert ".parquet, .lance, .npy, .safetensors, .jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--max-batch-token", "2048", "--port", "none"],
        ["embed", "x.png", "--max-token", "16"],
        ["plan", "--workload", "x.json", "--budget-tok", "16"],
        ["info", "--dty", "float32"],
    ],
)
def test_a_prefix_of_an_option_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "there is no option --" in capsys.readouterr().err


def test_info_describes_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "info", "--dtype", "float32")
    facts = json.loads(out)
    assert status == 0
    assert (facts["name"], facts["dim"], facts["patch_size"], facts["dtype"]) == ("packlight-tiny", 256, 16, "float32")


def test_layout_packed_is_accepted_with_a_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    status, out, _ = run(capsys, "info", "--layout", "packed")
    assert (status, json.loads(out)["layout"]) == (0, "packed")
    assert [record.levelname for record in caplog.records if "layout=packed has no effect" in record.message] == [
        "WARNING"
    ]


def test_the_padded_layout_is_refused_and_the_benchmark_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "serve", "--layout", "padded")
    assert status == 2
    assert "--layout) is 'padded': packs are always packed; `python -m loadtest.bench layouts` compares" in err


def odd_names(folder: Path) -> tuple[Path, Path]:
    """Pictures with a name that is not UTF-8 and with one of two lines."""
    paths = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")), folder / "two\nlines.png"
    for path in paths:
        path.write_bytes(pictures.save(pictures.picture(40, 40), "PNG"))
    return paths


def test_a_name_that_is_not_utf8_is_shown_escaped_and_loses_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin, lines = odd_names(tmp_path)
    (missing := latin.with_suffix(".jpg")).write_text("not a picture")
    status, out, err = run(capsys, "embed", latin, lines, missing, "--max-tokens", 16)
    assert status == 1
    assert [line.rpartition("/")[2] for line in out.splitlines()] == [r"caf\xe9.png", r"two\nlines.png"]
    assert rf"{tmp_path}/caf\xe9.jpg: not an image" in err


def test_a_line_says_that_a_file_lacked_its_end_marker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(pictures.save(pictures.picture(40, 60), "JPEG"))
    cut.write_bytes(whole.read_bytes()[:-2])
    assert run(capsys, "embed", whole, cut, "--max-tokens", 16, "--out", tmp_path / "x.jsonl")[0] == 0
    lines = [orjson.loads(line) for line in (tmp_path / "x.jsonl").read_bytes().splitlines()]
    assert lines[1].pop("repaired") is True
    assert lines[1] | {"file": str(whole)} == lines[0]


def test_a_name_that_is_not_utf8_is_escaped_in_every_kind_of_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin, lines = odd_names(tmp_path)
    for suffix in PLAIN:
        assert run(capsys, "embed", latin, lines, "--max-tokens", 16, "--out", tmp_path / f"x{suffix}")[0] == 0
    names = [rf"{tmp_path}/caf\xe9.png", str(lines)]
    assert [orjson.loads(line)["file"] for line in (tmp_path / "x.jsonl").read_bytes().splitlines()] == names
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["files"]) == names
    assert np.load(tmp_path / "x.npy").shape == (2, 256)


def test_a_terminal_without_the_characters_of_the_table_loses_no_result(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    assert main(["embed", str(photos[0]), "--max-tokens", "16"]) == 0
    assert rb"90\xd7120 px" in shown.getvalue()


def test_a_model_folder_whose_name_is_not_utf8_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "info", "--model", os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert (status, out) == (2, "")
    assert r"caf\udce9': it is not UTF-8; name a link to that folder" in err
