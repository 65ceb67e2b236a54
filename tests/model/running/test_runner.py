import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from loadtest.bench.forwards.wrapped import WrappedRunner
from model.checkpoint.load import Checkpoint, load_checkpoint
from model.checkpoint.tiny import FOLDER
from model.errors import BackendUnavailable, CheckpointError
from model.fingerprint import identity_of, variant_of
from model.kernels.hardware import has_native_bfloat16, has_vnni
from model.kernels.positions import PositionTable
from model.pack import PackedBatch, pack
from model.running.devices import choose_dtype
from model.running.output import RunnerOutput
from model.running.runner import Runner
from model.sizing.geometry import FixedInput, Geometry
from tests.reference import SMALL, random_pack, save_fixed


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return load_checkpoint("packlight-tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("clip")
    save_fixed(folder, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    return load_checkpoint(str(folder))


def test_output_has_one_row_per_segment_and_per_token_in_float32(tiny: Checkpoint) -> None:
    output = Runner(tiny, dtype="bfloat16").run(random_pack([(2, 3), (1, 1)]), tokens=True)
    assert output.tokens is not None
    assert output.pooled.shape == (2, 256)
    assert output.tokens.shape == (7, 256)
    assert output.pooled.dtype == output.tokens.dtype == np.float32


def test_parameters_are_counted_as_in_the_checkpoint_and_on_the_card(tiny: Checkpoint) -> None:
    parameters = sum(tensor.numel() for tensor in tiny.tensors.values())
    assert Runner(tiny).parameters == parameters
    card = " ".join((FOLDER / "MODEL_CARD.md").read_text().split())
    assert f"{parameters:,} parameters" in card


def test_filler_is_counted_as_computed(tiny: Checkpoint) -> None:
    runner = Runner(tiny)
    assert runner.run(random_pack([(2, 3), (1, 1)])).computed_tokens == 16
    assert runner.run(random_pack([(16, 16)])).computed_tokens == 256


def test_a_class_token_is_neither_an_image_token_nor_padding(clip: Checkpoint) -> None:
    """An image of 16 tokens takes 17 rows with its class token, and 32 with filler."""
    output = Runner(clip, dtype="float32").run(random_pack([(4, 4)]), tokens=True)
    assert output.tokens is not None
    assert output.tokens.shape == (16, 96)
    assert output.computed_tokens == 16 + 15


def test_an_embedding_may_be_wider_or_narrower_than_a_token(clip: Checkpoint) -> None:
    runner = Runner(clip)
    assert (runner.width, runner.token_width) == (40, 96)
    assert runner.run(random_pack([(4, 4)])).pooled.shape == (1, 40)


def test_a_model_with_one_grid_takes_no_other(clip: Checkpoint) -> None:
    runner = Runner(clip)
    with pytest.raises(AssertionError, match=r"a grid is \(2, 8\); the model has \(4, 4\) alone"):
        runner.run(random_pack([(4, 4), (2, 8)]))


def test_a_model_with_one_grid_warms_up_with_that_grid(clip: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(clip)
    run = runner.run
    batches: list[PackedBatch] = []

    def noting(batch: PackedBatch) -> RunnerOutput:
        batches.append(batch)
        return run(batch)

    monkeypatch.setattr(runner, "run", noting)
    for lengths in ([1], [16], [20, 20]):
        runner.warm_up(lengths)
    assert [batch.grids for batch in batches] == [((4, 4),), ((4, 4),), ((4, 4), (4, 4))]


def test_a_feature_layer_changes_tokens_and_the_fingerprint_but_no_embedding(tiny: Checkpoint) -> None:
    batch = random_pack([(2, 3)])
    plain, second, same = (Runner(tiny, dtype="float32", feature_layer=layer) for layer in (None, -2, 3))
    there, here = (runner.run(batch, tokens=True) for runner in (plain, second))
    assert np.array_equal(there.pooled, here.pooled)
    assert there.tokens is not None
    assert here.tokens is not None
    assert not np.allclose(there.tokens, here.tokens, atol=1e-3)
    assert second.fingerprint() == same.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("layer", [-6, 5])
def test_a_feature_layer_that_the_model_lacks_is_an_error(tiny: Checkpoint, layer: int) -> None:
    with pytest.raises(CheckpointError, match=f"feature_layer is {layer}; packlight-tiny has 4 layers: from -5 to 4"):
        Runner(tiny, feature_layer=layer)


def test_the_fingerprint_depends_on_how_pictures_are_resized(clip: Checkpoint) -> None:
    before = Runner(clip, dtype="float32").fingerprint()
    geometry = Geometry.for_fixed(16, FixedInput(64, "squash", 64, "bicubic"))
    squashed = replace(clip, preprocessing=replace(clip.preprocessing, geometry=geometry))
    assert Runner(squashed, dtype="float32").fingerprint() != before


def test_output_is_in_the_order_of_the_pack(tiny: Checkpoint) -> None:
    runner = Runner(tiny)
    first, second = random_pack([(2, 3)]), random_pack([(5, 4)])
    together = pack([first.rows, second.rows], [(2, 3), (5, 4)])
    there, back = runner.run(first).pooled[0], runner.run(second).pooled[0]
    assert not np.array_equal(there, back)
    assert np.array_equal(runner.run(together).pooled, np.stack([there, back]))


def test_the_dense_mask_gives_the_same_vectors(tiny: Checkpoint) -> None:
    batch = random_pack([(4, 5), (1, 1), (9, 9)])
    dense = WrappedRunner.dense(Runner(tiny, dtype="float32")).run(batch)
    np.testing.assert_allclose(dense.pooled, Runner(tiny, dtype="float32").run(batch).pooled, atol=2e-5)


def test_the_fingerprint_depends_on_dtype_and_decode_mode(tiny: Checkpoint) -> None:
    float32, bfloat16 = Runner(tiny, dtype="float32"), Runner(tiny, dtype="bfloat16")
    assert float32.fingerprint() == Runner(tiny, dtype="float32").fingerprint()
    fingerprints = {float32.fingerprint(), float32.fingerprint(decode="fast"), bfloat16.fingerprint()}
    assert {variant_of(each) for each in fingerprints} == {"float32", "float32-fast", "bfloat16"}
    assert len({identity_of(each) for each in fingerprints}) == 1


def test_the_fingerprints_of_earlier_versions_are_known(tiny: Checkpoint) -> None:
    old = Runner(tiny, dtype="bfloat16").old_fingerprints()
    # As version 0.1 answered, in its README.
    assert old["4ba8656fa140374a"] == Runner(tiny, dtype="float32").fingerprint()
    assert len(old) == len(set(old.values())) == 6


def test_auto_dtype_asks_the_hardware(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runner(tiny).dtype_name == ("bfloat16" if has_native_bfloat16() else "float32")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert Runner(tiny).dtype_name == "float32"


@pytest.mark.slow
def test_a_machine_limited_to_avx2_serves_float32_and_runs_bfloat16_if_asked(tiny: Checkpoint) -> None:
    program = """if True:
        import sys
        from model.checkpoint.load import load_checkpoint
        from model.running.runner import Runner
        from tests.reference import random_pack
        tiny, batch = load_checkpoint("packlight-tiny"), random_pack([(4, 4)])
        auto, asked = Runner(tiny), Runner(tiny, dtype="bfloat16")
        found, expected = asked.run(batch).pooled, auto.run(batch).pooled
        print(auto.dtype_name, abs(found - expected).max() / abs(expected).max())
    """
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    ran = subprocess.run([sys.executable, "-c", program], env=os.environ | limits, check=True, capture_output=True)
    dtype, difference = ran.stdout.split()
    assert dtype == b"float32"
    assert float(difference) < 0.02


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:99", "CUDA"), ("tpu", "cpu, cuda or cuda:N"), ("meta", "cpu, cuda or cuda:N")],
)
def test_a_device_that_the_machine_lacks_is_an_error(tiny: Checkpoint, device: str, message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message):
        Runner(tiny, device=device)


def test_an_unknown_dtype_is_an_error(tiny: Checkpoint) -> None:
    with pytest.raises(BackendUnavailable, match="auto, float32, bfloat16, float16, int8"):
        Runner(tiny, dtype="int4")  # type: ignore[arg-type]


def test_int8_is_refused_without_vnni_and_on_a_gpu(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match="dtype=int8 needs a CPU with VNNI, and device is cuda"):
        choose_dtype("int8", torch.device("cuda"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(BackendUnavailable, match="needs a CPU with VNNI .* saturate"):
        Runner(tiny, dtype="int8")


@pytest.mark.skipif(not has_vnni(), reason="8-bit products need a CPU with VNNI")
def test_int8_is_near_float32_and_a_variant_of_its_own(tiny: Checkpoint) -> None:
    batch = random_pack([(4, 5), (1, 1), (9, 9)])
    int8, float32 = Runner(tiny, dtype="int8"), Runner(tiny, dtype="float32")
    found, expected = int8.run(batch).pooled, float32.run(batch).pooled
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / norms).min() > 0.999
    assert int8.dtype_name == variant_of(int8.fingerprint()) == "int8"
    assert identity_of(int8.fingerprint()) == identity_of(float32.fingerprint())


@pytest.mark.skipif(not has_vnni(), reason="8-bit products need a CPU with VNNI")
def test_every_layer_of_the_blocks_of_int8_holds_integers_and_no_other_layer_does(tiny: Checkpoint) -> None:
    kept = {name for name, _ in Runner(tiny, dtype="int8").encoder.named_parameters() if name.endswith("weight")}
    layers = {name for name in kept if "norm" not in name}
    assert layers == {"patch.weight", "head.kv.weight", "head.out.weight", "head.mlp.0.weight", "head.mlp.1.weight"}


def test_resized_position_tables_are_cached_up_to_a_number_of_bytes() -> None:
    table = PositionTable(torch.randn(4, 4, 8), device=torch.device("cpu"), max_cached_bytes=8 * 4 * 6)
    first = table.for_grid((2, 2))
    assert table.for_grid((2, 2)) is first
    table.for_grid((1, 3))
    assert table.for_grid((2, 2)) is not first
    assert torch.equal(table.for_grid((2, 2)), first)


def test_the_learned_grid_is_not_resized() -> None:
    learned = torch.randn(4, 4, 8)
    assert torch.equal(PositionTable(learned, device=torch.device("cpu")).for_grid((4, 4)), learned.flatten(0, 1))
