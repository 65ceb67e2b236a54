"""The network in training, compared with the reference and with serving."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.pack import PackedBatch
from model.running.runner import Runner
from tests.reference import SMALL, normalised, random_pack, random_tower
from training.learning.dropping import drop_tokens, kept_cells
from training.learning.trainee import Trainee, rectangles

CONFIG = NaFlexConfig(width=96, depth=2, heads=3, mlp_width=200)
GRIDS = [(4, 4), (3, 5), (2, 9), (7, 7), (1, 1), (6, 8), (1, 5)]


def trainee_like(tower: Any) -> Trainee:
    trainee = Trainee(CONFIG)
    trainee.load_state_dict(vision_state(tower))
    return trainee


def vision_state(tower: Any) -> dict[str, Tensor]:
    return {name.removeprefix("vision_model."): weight for name, weight in tower.state_dict().items()}


def gradients(module: Any) -> dict[str, Tensor]:
    return {name.removeprefix("vision_model."): weight.grad for name, weight in module.named_parameters()}


def of_reference(tower: Any, batch: PackedBatch) -> Tensor:
    """Returns pooled vectors with gradients. Segments are padded to the largest grid, and dropped cells are masked."""
    largest = max(h * w for h, w in batch.grids)
    values = torch.zeros(len(batch.grids), largest, batch.rows.shape[1])
    mask = torch.zeros(len(batch.grids), largest, dtype=torch.int32)
    kept = kept_cells(batch)
    for number, (start, end) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        cells = np.arange(end - start) if kept is None else kept[start:end]
        values[number, cells] = normalised(batch.rows[start:end])
        mask[number, cells] = 1
    output = tower(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=torch.tensor(batch.grids))
    pooled: Tensor = output.pooler_output
    return pooled


def test_vectors_and_gradients_are_those_of_transformers() -> None:
    tower, batch = random_tower(SMALL), random_pack(GRIDS)
    trainee = trainee_like(tower)
    weights = torch.randn(len(GRIDS), CONFIG.width, generator=torch.Generator().manual_seed(1))
    theirs, (ours, _) = of_reference(tower, batch), trainee(batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1, float(theirs.detach().abs().max())))
    torch.autograd.backward([theirs, ours], [weights, weights])
    expected, found = gradients(tower), gradients(trainee)
    assert found.keys() == expected.keys()
    # The gradient of a key's bias is zero except for rounding, which is relative to the other gradients.
    least = 1e-2 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        largest = max(least, float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-4 * largest, msg=name)


def test_dropping_tokens_equals_masking_them_in_transformers() -> None:
    tower, batch = random_tower(SMALL), drop_tokens(random_pack(GRIDS), share=0.6, seed=0)
    theirs, (ours, _) = of_reference(tower, batch), trainee_like(tower)(batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1, float(theirs.detach().abs().max())))


def test_learnt_weights_are_served_unchanged() -> None:
    trainee, batch = Trainee(tiny.CONFIG), random_pack(GRIDS)
    trainee.begin(torch.Generator().manual_seed(0))
    tensors = {name: weight.detach() for name, weight in trainee.named_parameters()}
    assert {name: tuple(x.shape) for name, x in tensors.items()} == tiny.CONFIG.checkpoint_shapes()
    served = Runner(Checkpoint("learnt", tiny.CONFIG, tensors, tiny.PREPROCESSING, ""), dtype="float32").run(batch)
    learnt = trainee(batch)[0].detach().numpy()
    np.testing.assert_allclose(served.pooled, learnt, rtol=0, atol=1e-5 * max(1, np.abs(learnt).max()))


def test_rectangles_hold_neighbours_of_similar_length_in_order() -> None:
    found = rectangles([16, 15, 20, 49, 48, 5], torch.device("cpu"))
    assert [rectangle.shape for rectangle in found] == [(3, 20), (2, 49), (1, 5)]
    x = torch.arange(51.0)[:, None]
    assert torch.equal(found[0].unpad(found[0].pad(x)), x)
