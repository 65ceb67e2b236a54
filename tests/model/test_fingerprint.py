"""The two parts of a fingerprint, what is expected of it, and how far apart vectors of two may be."""

import math

import pytest

from model.fingerprint import (
    COSINE_TO_EXACT,
    FAST,
    difference,
    identity_of,
    is_expected,
    least_cosine,
    least_cosines,
    variant_of,
    written,
)

OURS, OTHERS, OLD = "0123456789abcdef", "fedcba9876543210", "aaaaaaaaaaaaaaaa"
FLOAT32, BFLOAT16, BFLOAT16_FAST = f"{OURS}-float32", f"{OURS}-bfloat16", f"{OURS}-bfloat16-fast"


def test_it_has_two_parts() -> None:
    assert written(OURS, dtype="bfloat16", decode="exact") == BFLOAT16
    assert written(OURS, dtype="bfloat16", decode="fast") == BFLOAT16_FAST
    for each, variant in ((FLOAT32, "float32"), (BFLOAT16_FAST, "bfloat16-fast"), (OURS, "")):
        assert (identity_of(each), variant_of(each)) == (OURS, variant)


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        (BFLOAT16, True), (OURS, True), (OLD, True), (FLOAT32, False), (BFLOAT16_FAST, False), (OTHERS, False),
        (f"{OTHERS}-bfloat16", False), ("", False), (OURS[:8], False), (f"{OURS}-", False), (BFLOAT16.upper(), False),
    ],
)  # fmt: skip
def test_what_is_expected_is_all_of_it_or_the_identity_or_the_old_form(expected: str, holds: bool) -> None:
    assert is_expected(expected, BFLOAT16, {OLD: BFLOAT16, "b" * 16: FLOAT32}) == holds


def test_angles_to_float32_add_up() -> None:
    def angle(part: str) -> float:
        return math.acos(COSINE_TO_EXACT[part])

    assert least_cosine(FLOAT32, FLOAT32) == 1
    assert least_cosine(FLOAT32, BFLOAT16) == pytest.approx(COSINE_TO_EXACT["bfloat16"])
    half = least_cosine(BFLOAT16, f"{OURS}-float16")
    assert half == pytest.approx(math.cos(angle("bfloat16") + angle("float16")))
    fast = least_cosine(FLOAT32, BFLOAT16_FAST)
    assert fast == least_cosine(BFLOAT16_FAST, FLOAT32) == pytest.approx(math.cos(angle("bfloat16") + angle(FAST)))


def test_rounding_has_no_direction_and_decoding_has_one() -> None:
    both = least_cosine(BFLOAT16, BFLOAT16_FAST)
    assert both == pytest.approx(
        math.cos(2 * math.acos(COSINE_TO_EXACT["bfloat16"]) + math.acos(COSINE_TO_EXACT[FAST]))
    )
    assert least_cosine(BFLOAT16_FAST, f"{OURS}-float32-fast") == pytest.approx(COSINE_TO_EXACT["bfloat16"])


def test_vectors_of_other_weights_and_of_unknown_dtypes_have_no_bound() -> None:
    assert least_cosine(BFLOAT16, f"{OTHERS}-bfloat16") is None
    assert least_cosine(BFLOAT16, f"{OURS}-int8") is None
    assert least_cosine(f"{OURS}-int8", f"{OURS}-int8") == 1
    assert least_cosine(OURS, BFLOAT16) is None


def test_all_variants_with_a_bound_are_listed() -> None:
    bounds = least_cosines(BFLOAT16)
    assert set(bounds) == {f"{dtype}{fast}" for dtype in COSINE_TO_EXACT if dtype != FAST for fast in ("", "-fast")}
    assert bounds["bfloat16"] == 1
    assert all(0.9 < cosine <= 1 for cosine in bounds.values())


def test_a_difference_says_whether_vectors_may_share_an_index() -> None:
    assert "do not belong in one index" in difference(BFLOAT16, f"{OTHERS}-bfloat16")
    assert "only the dtype or decode mode differs (bfloat16, float32)" in difference(BFLOAT16, FLOAT32)
    assert "a cosine of 0.99" in difference(BFLOAT16, FLOAT32)
    assert "cosine" not in difference(BFLOAT16, f"{OURS}-fp4")
