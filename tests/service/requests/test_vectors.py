import base64
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from service.engine.forward import have_directions
from service.errors import Invalid
from service.int8_scale import Int8Scale
from service.requests.results import normalized
from service.requests.vectors import Element, VectorFormat, check_dimensions, cut_warning

SCALE = Int8Scale()
DTYPES: dict[Element, str] = {
    "float": "f4", "float16": "f2", "bfloat16": "f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1",
}  # fmt: skip

numbers = st.floats(-1, 1, width=32)
rows = npst.arrays(np.float32, st.integers(1, 40), elements=numbers).filter(lambda row: bool(np.abs(row).max() > 0.01))
unit_vectors = rows.map(lambda row: normalized(row[None])[0])


def written(vector: NDArray[np.float32], **fields: object) -> NDArray[np.generic]:
    array = VectorFormat(**fields).write(vector, SCALE)  # type: ignore[arg-type]
    assert isinstance(array, np.ndarray)
    return array


@given(unit_vectors)
def test_floats_are_the_vector_itself(vector: NDArray[np.float32]) -> None:
    assert written(vector).tobytes() == vector.tobytes()
    np.testing.assert_array_equal(written(vector, element="float16"), vector.astype(np.float16))


@given(
    npst.arrays(
        np.float32, st.integers(1, 40), elements=st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)
    )
)
def test_bfloat16_rounds_as_torch_does(vector: NDArray[np.float32]) -> None:
    expected = torch.from_numpy(vector.copy()).bfloat16()
    np.testing.assert_array_equal(written(vector, element="bfloat16"), expected.float().numpy())
    text = VectorFormat("bfloat16", base64=True).write(vector, SCALE)
    assert isinstance(text, str)
    assert base64.b64decode(text) == expected.view(torch.int16).numpy().tobytes()


@given(unit_vectors, st.floats(0.5, 16))
def test_int8_is_within_half_a_step_unless_it_is_clipped(vector: NDArray[np.float32], clip: float) -> None:
    scale = Int8Scale(clip)
    factor = scale.factor(len(vector))
    values = VectorFormat("int8").array(vector, scale)
    assert values.dtype == np.int8
    assert values.min() >= -127
    decoded, most = values / factor, 127 / factor
    assert np.all(np.abs(decoded - np.clip(vector, -most, most)) <= 0.501 / factor)
    # Every unit vector has a number of at least 1 / sqrt(width).
    assert values.any()


@given(unit_vectors)
def test_unsigned_types_are_the_signed_ones_plus_128(vector: NDArray[np.float32]) -> None:
    for signed, unsigned in (("int8", "uint8"), ("binary", "ubinary")):
        ours = written(vector, element=signed).astype(np.int16) + 128
        np.testing.assert_array_equal(ours, written(vector, element=unsigned))


@given(unit_vectors)
def test_bits_say_which_numbers_are_over_zero(vector: NDArray[np.float32]) -> None:
    packed = written(vector, element="ubinary")
    assert len(packed) == math.ceil(len(vector) / 8)
    bits = np.unpackbits(packed)  # type: ignore[arg-type]
    np.testing.assert_array_equal(bits[: len(vector)], vector > 0)
    assert not bits[len(vector) :].any()


def test_bits_are_those_of_sentence_transformers() -> None:
    """What `quantize_embeddings` of sentence-transformers 6.2.0 gives for these vectors."""
    vectors = np.array(
        [
            [0.5, -0.25, 0.0, -0.0, 0.125, -0.5, 0.25, 1e-9, 1.0, -1.0],
            [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            [-0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1],
        ],
        np.float32,
    )
    assert written(vectors, element="ubinary").tolist() == [[139, 128], [0, 0], [255, 192], [85, 64]]
    assert written(vectors, element="binary").tolist() == [[11, 0], [-128, -128], [127, 64], [-43, -64]]


@given(unit_vectors, st.sampled_from(list(DTYPES)), st.sampled_from(["little", "big"]))
def test_base64_holds_the_array(vector: NDArray[np.float32], element: Element, endianness: str) -> None:
    text = VectorFormat(element, base64=True, endianness=endianness).write(vector, SCALE)  # type: ignore[arg-type]
    assert isinstance(text, str)
    data = base64.b64decode(text)
    order = "<" if endianness == "little" else ">"
    if element == "bfloat16":
        halves = np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16
        read = halves.view(np.float32)
    else:
        read = np.frombuffer(data, order + DTYPES[element])
    array = VectorFormat(element).array(vector, SCALE)
    assert array.dtype == DTYPES[element]
    np.testing.assert_array_equal(read, array)


@given(unit_vectors, st.data())
def test_a_cut_vector_has_length_1_again(vector: NDArray[np.float32], data: st.DataObject) -> None:
    width = data.draw(st.integers(1, len(vector)))
    kept = written(vector, dimensions=width)
    assert len(kept) == width
    if have_directions(vector[None, :width]):
        np.testing.assert_allclose(np.linalg.norm(kept.astype(np.float64)), 1, rtol=1e-5)
    if width == len(vector):
        assert kept.tobytes() == vector.tobytes()
    np.testing.assert_array_equal(written(vector, dimensions=width, normalize=False), vector[:width])


@given(unit_vectors, st.data())
def test_a_type_of_a_cut_vector_is_that_of_the_vector_that_was_cut(
    vector: NDArray[np.float32], data: st.DataObject
) -> None:
    """The scale of int8 follows the width."""
    width = data.draw(st.integers(1, len(vector)))
    assume(have_directions(vector[None, :width]))
    kept = VectorFormat(dimensions=width).array(vector, SCALE)
    for element in DTYPES:
        np.testing.assert_array_equal(
            written(vector, element=element, dimensions=width), written(kept, element=element), strict=True
        )


@given(npst.arrays(np.float32, (3, 5), elements=numbers), st.sampled_from(list(DTYPES)))
def test_rows_are_written_as_vectors_are(vectors: NDArray[np.float32], element: Element) -> None:
    assume(have_directions(vectors[:, :4]))
    together = written(vectors, element=element, dimensions=4)
    for row, vector in zip(together, vectors, strict=True):
        np.testing.assert_array_equal(row, written(vector, element=element, dimensions=4))


def test_numbers_at_and_beyond_the_clip_are_the_largest() -> None:
    vector = np.array([0.9, -0.9, 0.45, 0.1], np.float32)
    scale = Int8Scale(clip=0.9)  # ±0.45 at four numbers
    assert VectorFormat("int8").array(vector, scale).tolist() == [127, -127, 127, 28]
    assert VectorFormat("uint8").array(vector, scale).tolist() == [255, 1, 255, 156]


@pytest.mark.parametrize(
    ("vector", "fields", "param"),
    [
        ([0, 0, 0, 1], {"dimensions": 3}, "dimensions"),
        ([1e-30, 0, 0, 1], {"dimensions": 3}, "dimensions"),
        ([1e5, 1, 1, 1], {"element": "float16", "normalize": False}, None),
        ([1e-8, 0, 0, 0], {"element": "float16", "normalize": False}, None),
    ],
)
def test_a_vector_that_would_be_zeros_or_infinite_is_refused(
    vector: list[float], fields: dict[str, object], param: str | None
) -> None:
    good, bad = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32), np.array([vector], np.float32)
    form = VectorFormat(**fields)  # type: ignore[arg-type]
    form.check(good)
    VectorFormat().check(bad)
    with pytest.raises(Invalid) as refused:
        form.check(np.concatenate([good, bad]))
    assert refused.value.param == param


@given(unit_vectors, st.sampled_from(list(DTYPES)))
def test_no_unit_vector_is_refused_whole_nor_written_as_zeros(vector: NDArray[np.float32], element: Element) -> None:
    VectorFormat(element, dimensions=len(vector)).check(vector[None])
    # No bit is set where no number is over 0, and 128 stands for 0.
    if element in ("float", "float16", "bfloat16", "int8"):
        assert written(vector, element=element).any()


@pytest.mark.parametrize("dimensions", [0, -1, 257])
def test_dimensions_are_at_most_those_of_the_embedding(dimensions: int) -> None:
    with pytest.raises(Invalid, match=f"dimensions is {dimensions}; embeddings have 256"):
        check_dimensions(dimensions, 256)


def test_a_model_may_name_the_dimensions_it_allows() -> None:
    for dimensions in (None, 128, 64, 256):
        check_dimensions(dimensions, 256, (64, 128))
    with pytest.raises(Invalid, match="may be cut to 64, 128 of their 256"):
        check_dimensions(100, 256, (64, 128))
    check_dimensions(100, 256, ())
    check_dimensions(100, 256, None)


def test_a_cut_that_the_model_does_not_speak_of_is_named() -> None:
    warning = cut_warning(100, 256, None)
    assert warning is not None
    assert warning.isascii()
    assert "100 of 256" in warning
    for dimensions, allowed in ((None, None), (256, None), (100, ()), (100, (100,))):
        assert cut_warning(dimensions, 256, allowed) is None
