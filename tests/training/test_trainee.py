"""The network that learns: what the reference makes of the same weights, and what serving makes of what was learnt."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.naflex import NaFlexConfig
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
    """Pooled, with gradients, each segment padded to the largest grid. Cells of dropped tokens are masked."""
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
    # That of a key's bias is zero but for rounding, which is as large as the others are.
    least = 1e-2 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        largest = max(least, float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-4 * largest, msg=name)


def test_dropped_tokens_are_those_that_transformers_masks() -> None:
    tower, batch = random_tower(SMALL), drop_tokens(random_pack(GRIDS), share=0.6, seed=0)
    theirs, (ours, _) = of_reference(tower, batch), trainee_like(tower)(batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1, float(theirs.detach().abs().max())))


def test_what_was_learnt_is_served_as_it_was() -> None:
    trainee, batch = Trainee(tiny.CONFIG), random_pack(GRIDS)
    trainee.begin(torch.Generator().manual_seed(0))
    tensors = {name: weight.detach() for name, weight in trainee.named_parameters()}
    assert {name: tuple(x.shape) for name, x in tensors.items()} == tiny.CONFIG.checkpoint_shapes()
    served = Runner(Checkpoint("learnt", tiny.CONFIG, tensors, tiny.PREPROCESSING, ""), dtype="float32").run(batch)
    learnt = trainee(batch)[0].detach().numpy()
    np.testing.assert_allclose(served.pooled, learnt, rtol=0, atol=1e-5 * max(1, np.abs(learnt).max()))


def test_rectangles_hold_neighbours_of_like_length_in_order() -> None:
    found = rectangles([16, 15, 20, 49, 48, 5], torch.device("cpu"))
    assert [rectangle.shape for rectangle in found] == [(3, 20), (2, 49), (1, 5)]
    x = torch.arange(51.0)[:, None]
    assert torch.equal(found[0].unpad(found[0].pad(x)), x)
