"""The form of a fingerprint, which two may share an index, and how far apart their vectors can be. Plain strings.

`4ba8656fa140374a-bfloat16` has two parts. The **identity** in front of the first hyphen is a digest of weights, shape
and preprocessing: vectors of two identities do not belong in one index. The **variant** behind it names the dtype, with
`-fast` for that decode mode: vectors of two variants of one identity are the same up to rounding, and `least_cosine`
says how near. An identity alone stands for all of its variants.

Up to version 0.1 a fingerprint was one digest of all of this, 16 digits without a hyphen.
"""

import math
from collections.abc import Mapping

FAST = "fast"

# The least cosine of a picture's vector to its float32 vector of exact decoding that was measured on any model and any
# picture, rounded down: `python -m loadtest.bench variants`, docs/rolling.md. int8 has none: a model with a few
# channels far larger than the others can fall below any that is worth stating (docs/dtypes.md).
COSINE_TO_EXACT: dict[str, float] = {"float32": 1.0, "float16": 0.9999, "bfloat16": 0.999, FAST: 0.99}


def written(identity: str, *, dtype: str, decode: str) -> str:
    """The fingerprint of vectors that this dtype and this decode mode make."""
    return "-".join([identity, dtype] + [FAST] * (decode == FAST))


def identity_of(fingerprint: str) -> str:
    """The part that must be equal."""
    return fingerprint.partition("-")[0]


def variant_of(fingerprint: str) -> str:
    """The part that may differ: `bfloat16`, `float32-fast`. Empty for an identity alone."""
    return fingerprint.partition("-")[2]


def today(fingerprint: str, old_forms: Mapping[str, str]) -> str:
    """A fingerprint of the old form as it is written today, if it is one of `old_forms`; any other as it is."""
    return old_forms.get(fingerprint, fingerprint)


def is_expected(expected: str, fingerprint: str, old_forms: Mapping[str, str]) -> bool:
    """Whether `fingerprint` is what is expected: a whole fingerprint, an identity, or a fingerprint of the old form."""
    return today(expected, old_forms) in (fingerprint, identity_of(fingerprint))


def least_cosine(one: str, other: str) -> float | None:
    """The least cosine between the vectors of one picture under two fingerprints of one identity.

    Both are near a float32 vector: their angles to it add up. None for two identities, and for a dtype that has no
    stated bound.
    """
    if one == other and variant_of(one):
        return 1.0
    ours, theirs = (variant_of(each).split("-") for each in (one, other))
    if identity_of(one) != identity_of(other) or ours[0] not in COSINE_TO_EXACT or theirs[0] not in COSINE_TO_EXACT:
        return None
    apart = [ours[0], theirs[0]] + [FAST] * ((FAST in ours) != (FAST in theirs))
    return math.cos(sum(math.acos(COSINE_TO_EXACT[part]) for part in apart))


def least_cosines(fingerprint: str) -> dict[str, float]:
    """The same to every variant that has a bound, by its name."""
    identity = identity_of(fingerprint)
    others = [
        written(identity, dtype=dtype, decode=decode)
        for dtype in COSINE_TO_EXACT
        for decode in ("exact", FAST)
        if dtype != FAST
    ]
    near = {variant_of(other): least_cosine(fingerprint, other) for other in others}
    return {variant: round(cosine, 5) for variant, cosine in near.items() if cosine is not None}


def difference(one: str, other: str) -> str:
    """Why vectors of two fingerprints are not the same, as a clause. The fingerprints differ, and are of today."""
    if identity_of(one) != identity_of(other):
        return "the weights, the model or its preprocessing differ, and such vectors do not belong in one index"
    what = f"only the dtype or decode mode differs ({variant_of(one)}, {variant_of(other)})"
    near = least_cosine(one, other)
    return what if near is None else f"{what}: the vectors of one picture have a cosine of {near:.4f} or more"
