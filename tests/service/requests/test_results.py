import numpy as np
import pytest

from service.requests.results import image_embedding, normalized

POOLED = np.array([[3, 4, 0], [0, 0, 7], [0, 20, 0]], np.float32)


@pytest.mark.parametrize(("normalize", "expected"), [(True, [0.6, 0.8, 0]), (False, [3, 4, 0])])
def test_an_image_of_one_segment_has_its_vector(normalize: bool, expected: list[float]) -> None:
    np.testing.assert_allclose(image_embedding(POOLED[:1], normalize=normalize), expected, rtol=1e-6)


def test_an_image_of_several_segments_has_the_mean_of_their_directions() -> None:
    mean = np.array([0.2, 0.6, 1 / 3])
    np.testing.assert_allclose(image_embedding(POOLED, normalize=False), mean, rtol=1e-6)
    np.testing.assert_allclose(image_embedding(POOLED, normalize=True), mean / np.linalg.norm(mean), rtol=1e-6)


def test_vectors_are_float32_and_zeros_stay_zeros() -> None:
    assert image_embedding(POOLED, normalize=True).dtype == np.float32
    assert not normalized(np.zeros((2, 3), np.float32)).any()


@pytest.mark.parametrize("width", [1, 7, 256, 768, 1152, 5000])
def test_one_vector_alone_has_the_bits_that_it_has_among_others(width: int) -> None:
    random = np.random.default_rng(width)
    # From subnormal numbers to those whose squares overflow.
    scales = np.exp(random.uniform(-98, 86, (200, 1))).astype(np.float32)
    vectors = np.concatenate(
        [random.standard_normal((200, width), np.float32) * scales, np.zeros((1, width), np.float32)]
    )
    with np.errstate(over="ignore"):
        alone = [image_embedding(vector[None], normalize=True) for vector in vectors]
        np.testing.assert_array_equal(np.stack(alone).view(np.uint32), normalized(vectors).view(np.uint32))
