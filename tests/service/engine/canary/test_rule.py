"""What the canary's vectors must be, whatever goes wrong with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.canary.rule import Recorded, Vectors, allowed_distance, cosine, distance, fault_in, largest_share

NAMES = ("icon", "page", "receipt")


def vectors(seed: int = 0) -> dict[str, Vectors]:
    drawn = np.random.default_rng(seed).normal(size=(len(NAMES), 1, 64)).astype(np.float32)
    return dict(zip(NAMES, drawn, strict=True))


RECORDED = Recorded(vectors(), 0.02)


def test_what_was_recorded_is_right() -> None:
    assert fault_in(vectors(), RECORDED) is None
    assert largest_share(vectors(), RECORDED) == 0
    assert fault_in(vectors(), None) is None


@given(seed=st.integers(1, 2**32 - 1), share=st.floats(0, 3))
def test_noise_is_wrong_above_the_bound_and_right_below(seed: int, share: float) -> None:
    noisy = vectors()
    noise = np.random.default_rng(seed).normal(size=noisy["page"].shape)
    scale = share * RECORDED.allowed * np.linalg.norm(noisy["page"]) / np.linalg.norm(noise)
    noisy["page"] = (noisy["page"] + scale * noise).astype(np.float32)
    if abs(share - 1) > 1e-3:
        assert (fault_in(noisy, RECORDED) is None) == (share < 1)
        assert largest_share(noisy, RECORDED) == pytest.approx(share, abs=1e-4)


def constant() -> dict[str, Vectors]:
    return dict.fromkeys(NAMES, vectors(1)["icon"])


def shuffled() -> dict[str, Vectors]:
    right = vectors()
    return {"icon": right["page"], "page": right["receipt"], "receipt": right["icon"]}


def halved() -> dict[str, Vectors]:
    return {name: each / np.float32(2) for name, each in vectors().items()}


def not_a_number() -> dict[str, Vectors]:
    return vectors() | {"page": np.full((1, 64), np.nan, np.float32)}


def of_another_shape() -> dict[str, Vectors]:
    return vectors() | {"page": np.ones((1, 63), np.float32)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (constant(), "icon and page have the same vector"),
        (shuffled(), "icon has the vector of page"),
        (halved(), "the vector of icon is 0.5 away"),
        (not_a_number(), "no vector for page"),
        (of_another_shape(), "the vector of page is inf away"),
        ({"page": vectors()["icon"]}, "page has the vector of icon"),
    ],
)
def test_a_lie_is_told_by_its_kind(wrong: dict[str, Vectors], said: str) -> None:
    fault = fault_in(wrong, RECORDED)
    assert fault is not None
    assert said in fault


def test_without_a_record_vectors_are_finite_and_differ() -> None:
    assert fault_in(halved(), None) is None
    assert fault_in(constant(), None) == "icon and page have the same vector"
    assert fault_in(not_a_number(), None) == "the device gives no vector for page"


def test_a_bound_grows_with_what_the_dtype_does_to_the_model_and_stays_useful() -> None:
    assert allowed_distance("float32", 0) == 0.005
    assert allowed_distance("bfloat16", 0.001) == 0.02
    assert allowed_distance("bfloat16", 0.03) == pytest.approx(0.12)
    # A model that int8 throws far off: what the same CPU computed when it recorded must pass.
    assert allowed_distance("int8", 0.3) == pytest.approx(0.45)


@given(measured=st.floats(0, 1), dtype=st.sampled_from(["float32", "float16", "bfloat16", "int8"]))
def test_what_was_measured_is_always_allowed(measured: float, dtype: str) -> None:
    assert allowed_distance(dtype, measured) >= 1.5 * measured


def test_a_distance_is_relative_and_the_largest_of_all_rows() -> None:
    recorded = np.array([[3, 4], [0, 10]], np.float32)
    assert distance(np.array([[3, 4], [1, 10]], np.float32), recorded) == pytest.approx(0.1)
    assert cosine(np.array([[6, 8], [0, 1]], np.float32), recorded) == pytest.approx(1)
