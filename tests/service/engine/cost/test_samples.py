from itertools import pairwise

import pytest

from model.sizing.geometry import FixedInput, Geometry
from service.engine.client import ImageJob
from service.engine.cost.fit import FIRST_FIT_PACKS, CostModel
from service.engine.cost.samples import CostSamples
from service.limits import Limits

LIMITS = Limits(256, 1024, 4096, 32_768)
NAFLEX = Geometry.for_naflex(16, 256)
FIXED = Geometry.for_fixed(16, FixedInput(224, "squash", 224, "bicubic"))
MERGING = Geometry.for_merging(14, 2, min_pixels=28**2, max_pixels=10**6)


def cost_at(tokens_per_s: float) -> CostModel:
    cost = CostModel()
    cost.know_rate(1000, 1000 / tokens_per_s)
    return cost


def packs_of(geometry: Geometry, limits: Limits) -> list[list[ImageJob]]:
    """All of them, as a fast device without a fit would run them."""
    samples, cost = CostSamples(geometry, limits), cost_at(1e9)
    packs = []
    while samples.wanted(cost):
        packs.append(samples.take())
    return packs


def tokens(pack: list[ImageJob]) -> int:
    return sum(image.tokens for image in pack)


@pytest.mark.parametrize("geometry", [NAFLEX, FIXED, MERGING])
@pytest.mark.parametrize(
    "limits", [LIMITS, Limits(64, 64, 256, 256), Limits(1, 1, 1, 1), Limits(256, 4096, 4096, 8192, max_batch_items=1)]
)
def test_packs_are_within_the_limits_and_the_cheap_ones_come_first(geometry: Geometry, limits: Limits) -> None:
    packs = packs_of(geometry, limits)
    assert all(tokens(pack) <= limits.max_batch_tokens for pack in packs)
    assert all(len(pack) <= (limits.max_batch_items or len(pack)) for pack in packs)
    assert all(tokens(one) <= tokens(other) for one, other in pairwise(packs))


@pytest.mark.parametrize("geometry", [NAFLEX, FIXED, MERGING])
def test_the_images_are_such_as_the_model_takes(geometry: Geometry) -> None:
    images = [image for pack in packs_of(geometry, LIMITS) for image in pack]
    assert images
    for image in images:
        ((height, width),) = image.grids
        assert image.rows.shape == (height * width, 3 * geometry.patch_size**2)
        assert height % geometry.native_factor == width % geometry.native_factor == 0
        assert geometry.fixed is None or (height, width) == geometry.tile_grid


@pytest.mark.parametrize("geometry", [NAFLEX, FIXED, MERGING])
def test_they_are_enough_for_a_fit_and_none_is_wanted_after_it(geometry: Geometry) -> None:
    samples, cost = CostSamples(geometry, LIMITS), cost_at(1e6)
    for number in range(FIRST_FIT_PACKS):
        assert samples.wanted(cost), number
        pack = samples.take()
        squares = sum(length**2 for image in pack for length in image.lengths)
        cost.observe(tokens(pack), squares, 1e-3 + 1e-6 * tokens(pack) + 1e-9 * squares)
    assert cost.fit is not None
    sum_n, sum_n2 = 10 * pack[-1].tokens, 10 * pack[-1].tokens ** 2
    assert cost.fit.seconds(sum_n, sum_n2) == pytest.approx(1e-3 + 1e-6 * sum_n + 1e-9 * sum_n2, rel=0.1)
    assert not samples.wanted(cost)


def test_none_is_wanted_once_traffic_has_shown_what_packs_cost() -> None:
    samples, cost = CostSamples(NAFLEX, LIMITS), cost_at(1e6)
    for _ in range(FIRST_FIT_PACKS):
        assert samples.wanted(cost)
        cost.observe(256, 256**2, 0.01)
    assert not samples.wanted(cost)


def test_a_pack_that_would_keep_a_request_waiting_is_not_wanted() -> None:
    samples, slow = CostSamples(NAFLEX, LIMITS), cost_at(1000)
    assert not samples.wanted(CostModel())
    taken = 0
    while samples.wanted(slow):
        assert tokens(samples.take()) <= 100
        taken += 1
    assert taken == 2
