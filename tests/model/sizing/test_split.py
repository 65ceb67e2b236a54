from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry, Strategy
from model.sizing.plan import Size, plan_image
from model.sizing.split import split_request_tokens
from tests.examples import many

NAFLEX = Geometry.for_naflex(16, 256)
CLIP = Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"))
GEOMETRIES = (
    NAFLEX,
    CLIP,
    Geometry.for_merging(14, 2, min_pixels=3136, max_pixels=1_003_520),
    Geometry(14, ("native", "square"), native_factor=2),
    Geometry(8, ("anyres",), tile_side=16, pinpoints=((16, 16), (48, 16), (32, 32), (64, 16), (16, 80))),
)

CAPS = st.integers(1, 1024)
SIZES = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000), CAPS), min_size=1, max_size=6)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Size], list[Budget], Geometry, Strategy, int]:
    """Sizes and budgets, some of them alike; a model, one of its strategies, and a limit."""
    geometry = draw(st.sampled_from(GEOMETRIES))
    patch_pixels = geometry.patch_size**2
    side = st.one_of(st.integers(1, 80), st.integers(1, 4000), st.integers(1, 100_000_000))
    budget = st.builds(
        lambda cap, over, least: Budget(cap, cap * patch_pixels + over, least),
        st.integers(1, 3000),
        st.integers(0, patch_pixels - 1),
        st.none() | st.integers(1, 100 * patch_pixels),
    )
    images = draw(st.lists(st.tuples(st.tuples(side, side), budget, st.integers(1, 3)), min_size=1, max_size=8))
    alike = [(size, budget) for size, budget, count in images for _ in range(count)]
    limit = draw(st.one_of(st.integers(1, 200), st.integers(1, 20_000)))
    return [s for s, _ in alike], [b for _, b in alike], geometry, draw(st.sampled_from(geometry.strategies)), limit


@many(500)
@given(requests())
def test_a_split_is_that_of_planning_every_image_at_every_level(request) -> None:
    sizes, budgets, geometry, strategy, limit = request

    def outcome(split: Callable[..., list[Budget]]) -> object:
        try:
            return split(sizes, budgets, geometry=geometry, strategy=strategy, max_request_tokens=limit)
        except BudgetError as error:
            return str(error), error.param

    assert outcome(split_request_tokens) == outcome(split_slowly)


@given(SIZES, st.integers(1, 4096), st.sampled_from(NAFLEX.strategies))
def test_request_tokens_are_split_at_the_highest_level_that_fits(images, limit: int, strategy: Strategy) -> None:
    sizes, caps = [(h, w) for h, w, _ in images], [cap for *_, cap in images]
    possible = [_tokens(size, cap, strategy) is not None for size, cap in zip(sizes, caps, strict=True)]

    def total(level: int) -> int | None:
        """Tokens, at a level, of the images that their own caps allow; None if it is too low for one of them."""
        capped = zip(sizes, caps, possible, strict=True)
        tokens = [_tokens(size, min(cap, level), strategy) for size, cap, ok in capped if ok]
        return None if None in tokens else sum(count or 0 for count in tokens)

    highest = max((cap for cap, ok in zip(caps, possible, strict=True) if ok), default=1)
    fits = [level for level in range(1, highest + 1) if (used := total(level)) is not None and used <= limit]
    if limit < len(images) or not fits:
        with pytest.raises(BudgetError, match="max_request_tokens") as caught:
            _split(sizes, caps, limit, strategy)
        assert caught.value.param == "max_request_tokens"
        return
    budgets = _split(sizes, caps, limit, strategy)
    lowered = [min(cap, fits[-1]) if ok else cap for cap, ok in zip(caps, possible, strict=True)]
    assert [budget.token_cap for budget in budgets] == lowered


def test_a_fixed_model_that_cannot_be_lowered_is_refused_by_the_requests_limit() -> None:
    sizes, caps = [(100, 100)] * 3, [1024] * 3
    assert [budget.token_cap for budget in _split(sizes, caps, 3 * 576, "square", CLIP)] == caps
    with pytest.raises(BudgetError, match="max_request_tokens is 1727; strategy=square") as caught:
        _split(sizes, caps, 3 * 576 - 1, "square", CLIP)
    assert caught.value.param == "max_request_tokens"


def test_a_lowered_native_image_keeps_its_least_area() -> None:
    budgets = [Budget(100, 100 * 256, min_pixels=90 * 256)] * 2
    sizes = [(160, 160)] * 2
    with pytest.raises(BudgetError, match="max_request_tokens"):
        split_request_tokens(sizes, budgets, geometry=NAFLEX, strategy="native", max_request_tokens=161)
    split = split_request_tokens(sizes, budgets, geometry=NAFLEX, strategy="native", max_request_tokens=200)
    assert split == budgets


def _split(
    sizes: list[tuple[int, int]], caps: list[int], limit: int, strategy: Strategy, geometry: Geometry = NAFLEX
) -> list[Budget]:
    budgets = [Budget.of_tokens(cap, geometry.patch_size) for cap in caps]
    return split_request_tokens(sizes, budgets, geometry=geometry, strategy=strategy, max_request_tokens=limit)


def _tokens(size: Size, cap: int, strategy: Strategy) -> int | None:
    return _planned_tokens(size, Budget.of_tokens(cap, 16), NAFLEX, strategy)


def split_slowly(
    sizes: Sequence[tuple[int, int]],
    budgets: Sequence[Budget],
    *,
    geometry: Geometry,
    strategy: Strategy,
    max_request_tokens: int,
) -> list[Budget]:
    """The oracle: plans every image at every level that it tries."""
    if max_request_tokens < len(sizes):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; {len(sizes)} images take at least 1 token each",
            param="max_request_tokens",
        )
    counts = Counter(zip(sizes, budgets, strict=True))
    allowed = {
        image: count for image, count in counts.items() if _planned_tokens(*image, geometry, strategy) is not None
    }

    def lowered(budget: Budget, level: int) -> Budget:
        return budget.lowered(level, geometry.patch_size, bound="max_request_tokens")

    def used(level: int) -> list[tuple[int | None, int]]:
        return [
            (_planned_tokens(size, lowered(budget, level), geometry, strategy), count)
            for (size, budget), count in allowed.items()
        ]

    def fits(level: int) -> bool:
        return sum(count * (tokens or 0) for tokens, count in used(level)) <= max_request_tokens

    def fits_if_filled(level: int) -> bool:
        return sum(count * min(budget.token_cap, level) for (_, budget), count in allowed.items()) <= max_request_tokens

    highest = max((budget.token_cap for _, budget in allowed), default=1)
    low = _highest(fits_if_filled, 1, highest)
    step = 1 + low // 16
    while low + step < highest and fits(low + step):
        low, step = low + step, 2 * step
    level = _highest(fits, low, min(low + step, highest))
    if any(tokens is None for tokens, _ in used(level)):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; strategy={strategy} cannot lower these images to that",
            param="max_request_tokens",
        )
    return [
        lowered(budget, level) if (size, budget) in allowed else budget
        for size, budget in zip(sizes, budgets, strict=True)
    ]


def _highest(fits: Callable[[int], bool], low: int, high: int) -> int:
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _planned_tokens(size: tuple[int, int], budget: Budget, geometry: Geometry, strategy: Strategy) -> int | None:
    """Tokens of the image under this budget; None if it cannot meet it."""
    try:
        return plan_image(size, geometry=geometry, budget=budget, strategy=strategy).tokens
    except BudgetError:
        return None
