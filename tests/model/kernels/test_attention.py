from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from loadtest.bench.forwards.dense import block_diagonal_mask, dense_attention
from model.errors import BackendUnavailable
from model.kernels.attention import (
    Segments,
    VarlenAttention,
    choose_attention,
    for_width,
    products_attention,
    segmentwise_attention,
)

CPU = torch.device("cpu")


def segments(*lengths: int, causal: bool = False, window: int | None = None) -> Segments:
    return Segments.at(np.cumsum([0, *lengths], dtype=np.int32), max(lengths), CPU, causal=causal, window=window)


def random_qkv(
    queries: int, keys: int, heads: int = 3, width: int = 72, *, shared: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """shared: heads of the queries that share one of the keys and values."""
    generator = torch.Generator().manual_seed(queries)
    q = torch.randn(queries, heads, width, generator=generator)
    k, v = torch.randn(2, keys, heads // shared, width, generator=generator)
    return q, k, v


def test_the_mask_has_a_square_of_ones_for_each_segment() -> None:
    parts = segments(256, 576, 729, 1024)
    mask = block_diagonal_mask(parts, parts)
    assert mask.shape == (2585, 2585)
    assert int(mask.sum()) == 256**2 + 576**2 + 729**2 + 1024**2
    for start, end in pairwise(parts.offsets):
        assert mask[start:end, start:end].all()


def test_segmentwise_equals_the_dense_mask() -> None:
    parts = segments(1, 30, 7, 256, 2)
    q, k, v = random_qkv(296, 296)
    torch.testing.assert_close(
        segmentwise_attention(q, k, v, parts, parts), dense_attention(q, k, v, parts, parts), atol=2e-6, rtol=0
    )


def test_one_query_per_segment_equals_the_dense_mask() -> None:
    keys, queries = segments(5, 1, 100), segments(1, 1, 1)
    q, k, v = random_qkv(3, 106)
    torch.testing.assert_close(
        segmentwise_attention(q, k, v, queries, keys), dense_attention(q, k, v, queries, keys), atol=2e-6, rtol=0
    )


def test_dense_attention_is_softmax_of_scaled_products_within_a_segment() -> None:
    parts = segments(3, 4)
    q, k, v = random_qkv(7, 7, heads=1, width=8)
    out = dense_attention(q, k, v, parts, parts)
    scores = q[3:, 0] @ k[3:, 0].T / 8**0.5
    torch.testing.assert_close(out[3:, 0], scores.softmax(-1) @ v[3:, 0])


@pytest.mark.parametrize("attention", [segmentwise_attention, products_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_segment_attends_to_what_is_not_later(attention, dtype: torch.dtype) -> None:
    """Single and in runs of one length, with few queries, and with more scores than `products` holds at once."""
    parts = segments(1, 1, 3, 3, 3, 20, 77, 77, 1500, 2, causal=True)
    q, k, v = (x.to(dtype) for x in random_qkv(1687, 1687))
    expected = dense_attention(q.float(), k.float(), v.float(), parts, parts)
    out = attention(q, k, v, parts, parts)
    tolerance = 2e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(out[:2], v[:2], atol=0, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("attention", "dtype"),
    [
        (segmentwise_attention, torch.float32),
        (segmentwise_attention, torch.bfloat16),
        (products_attention, torch.bfloat16),
    ],
)
def test_a_segment_among_neighbours_of_its_length_has_the_bits_it_has_alone(
    attention, dtype: torch.dtype, causal: bool
) -> None:
    for length in (1, 2, 5, 17, 64, 77):
        count = 40
        q, k, v = (x.to(dtype) for x in random_qkv(count * length, count * length))
        together = segments(*[length] * count, causal=causal)
        alone = segments(length, causal=causal)
        out = attention(q, k, v, together, together)
        for start, end in pairwise(together.offsets):
            one = attention(*(x[start:end].clone() for x in (q, k, v)), alone, alone)
            assert torch.equal(out[start:end], one), length


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_equal_the_dense_mask_even_when_queries_are_split(dtype: torch.dtype) -> None:
    """3 heads over 1,500 keys: more scores than `products` holds at once."""
    parts = segments(7, 7, 7, 1, 1500, 64, 64, 63, 64)
    q, k, v = (x.to(dtype) for x in random_qkv(1777, 1777))
    expected = dense_attention(q.float(), k.float(), v.float(), parts, parts)
    out = products_attention(q, k, v, parts, parts)
    assert out.dtype == dtype
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("attention", [segmentwise_attention, products_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "shared"), [(None, 2), (0, 1), (5, 4), (512, 2)])
def test_windows_and_shared_keys_equal_the_dense_mask(
    attention, dtype: torch.dtype, window: int | None, shared: int
) -> None:
    """Segments within the window, one token over it, in runs, and of several blocks whose last is a short one."""
    parts = segments(1, 5, 6, 7, 7, 7, 30, 513, 514, 1027, window=window)
    q, k, v = (x.to(dtype) for x in random_qkv(2117, 2117, heads=4, width=24, shared=shared))
    expected = dense_attention(q.float(), k.float(), v.float(), parts, parts)
    out = attention(q, k, v, parts, parts)
    tolerance = 2e-6 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("attention", "dtype"),
    [
        (segmentwise_attention, torch.float32),
        (segmentwise_attention, torch.bfloat16),
        (products_attention, torch.bfloat16),
    ],
)
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 2, 256), (4, 4, 512)])
def test_a_segment_with_a_window_has_the_same_bits_in_any_pack_at_any_number_of_threads(
    attention, dtype: torch.dtype, heads: int, shared: int, width: int
) -> None:
    lengths = [1, 3, 18, 18, 18, 40, 40, 530]
    q, k, v = (x.to(dtype) for x in random_qkv(sum(lengths), sum(lengths), heads, width, shared=shared))
    together, threads = segments(*lengths, window=16), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [
            attention(*(x[start:end].clone() for x in (q, k, v)), *[segments(end - start, window=16)] * 2)
            for start, end in pairwise(together.offsets)
        ]
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            assert torch.equal(attention(q, k, v, together, together), torch.cat(alone)), count
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("width", [33, 50, 65, 66, 68])
def test_heads_whose_rows_begin_anywhere_in_memory_have_the_same_bits_in_any_pack(width: int) -> None:
    """Rows of a packed sequence that are no multiple of 16 bytes: where one begins depends on the rows before it."""
    lengths = [1, 2, 3, 35, 61, 61, 1, 143, 61]
    qkv = torch.cat([*random_qkv(sum(lengths), sum(lengths), 1, width)], dim=1)
    parts = segments(*lengths)
    out = segmentwise_attention(qkv[:, :1], qkv[:, 1:2], qkv[:, 2:], parts, parts)
    for start, end in pairwise(parts.offsets):
        own, part = qkv[start:end].clone(), segments(end - start)
        alone = segmentwise_attention(own[:, :1], own[:, 1:2], own[:, 2:], part, part)
        assert torch.equal(out[start:end], alone), end - start


def test_work_grows_with_the_window_in_a_long_segment() -> None:
    """Scores that are computed, by the blocks: about as many a token whatever the length is."""
    parts = segments(1, window=64)
    for length in (4_000, 40_000):
        scores = sum((rows.stop - rows.start) * (keys.stop - keys.start) for rows, keys, _ in parts.blocks(length))
        assert 129 * length <= scores <= 650 * length


def test_products_with_one_query_per_segment_use_segmentwise() -> None:
    keys, queries = segments(5, 5, 100), segments(1, 1, 1)
    q, k, v = random_qkv(3, 110)
    one_by_one = segmentwise_attention(q, k, v, queries, keys)
    assert torch.equal(products_attention(q, k, v, queries, keys), one_by_one)


@pytest.mark.parametrize("attention", [segmentwise_attention, dense_attention, products_attention])
def test_changing_one_segment_does_not_change_another(attention) -> None:
    parts = segments(40, 25, 13)
    q, k, v = random_qkv(78, 78)
    before = attention(q, k, v, parts, parts)
    for x in (q, k, v):
        x[:40] = 1e4
        x[65:] = -1e4
    assert torch.equal(attention(q, k, v, parts, parts)[40:65], before[40:65])


@pytest.mark.parametrize("attention", [segmentwise_attention, dense_attention, products_attention])
def test_filler_rows_come_out_as_zeros(attention) -> None:
    parts = segments(4, 5)
    q, k, v = random_qkv(16, 16)
    k[9:], v[9:] = float("nan"), float("nan")
    out = attention(q, k, v, parts, parts)
    assert out.isfinite().all()
    assert not out[9:].any()


def test_asking_for_varlen_without_cuda_is_an_error() -> None:
    with pytest.raises(BackendUnavailable, match="attention=varlen needs a CUDA device"):
        choose_attention("varlen", CPU, torch.bfloat16, 64)


def test_asking_for_varlen_in_float32_is_an_error() -> None:
    with pytest.raises(BackendUnavailable, match="bfloat16 or float16"):
        choose_attention("varlen", torch.device("cuda"), torch.float32, 64)


def test_asking_for_varlen_with_a_head_width_that_it_lacks_is_an_error() -> None:
    with pytest.raises(BackendUnavailable, match="multiple of 8, up to 256, and these have 36"):
        choose_attention("varlen", torch.device("cuda"), torch.bfloat16, 36)


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(BackendUnavailable, match="it is one of auto, varlen, products, segmentwise$"):
        choose_attention("flash", CPU, torch.float32, 64)  # type: ignore[arg-type]


def test_auto_takes_segmentwise_on_a_cpu_and_on_a_gpu_in_float32_where_it_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert choose_attention("auto", CPU, torch.float32, 64) == ("segmentwise", segmentwise_attention)
    assert not caplog.records
    assert choose_attention("auto", torch.device("cuda"), torch.float32, 64)[0] == "segmentwise"
    assert "segment by segment" in caplog.text


def test_asking_for_products_in_float32_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.kernels.attention.has_native_bfloat16", lambda: True)
    with pytest.raises(BackendUnavailable, match="attention=products needs dtype bfloat16, and this is float32"):
        choose_attention("products", CPU, torch.float32, 64)


@pytest.mark.parametrize(("native", "name"), [(True, "products"), (False, "segmentwise")])
def test_auto_in_bfloat16_on_a_cpu_asks_the_hardware(monkeypatch: pytest.MonkeyPatch, native: bool, name: str) -> None:
    monkeypatch.setattr("model.kernels.attention.has_native_bfloat16", lambda: native)
    assert choose_attention("auto", CPU, torch.bfloat16, 64)[0] == name


def test_varlen_is_pinned_to_one_split_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two splits would let the batch choose the order of a sum."""
    taken: dict[str, int] = {}

    def kernel(q: torch.Tensor, *rest: object, num_splits: int) -> torch.Tensor:
        taken["num_splits"] = num_splits
        return q

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    parts, q = segments(3, 4), torch.randn(7, 2, 8)
    VarlenAttention()(q, q, q, parts, parts)
    assert taken == {"num_splits": 1}


@pytest.mark.parametrize(("head_width", "is_kept"), [(64, True), (256, True), (320, False), (36, False)])
def test_layers_whose_heads_varlen_lacks_run_segment_by_segment(head_width: int, is_kept: bool) -> None:
    backend = VarlenAttention()
    assert for_width(backend, head_width) is (backend if is_kept else segmentwise_attention)
    assert for_width(segmentwise_attention, head_width) is segmentwise_attention


def test_varlen_takes_causal_segments_as_a_window_that_ends_at_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, object] = {}
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *rest, **options: taken.update(options) or q)
    parts, q = segments(3, 4, causal=True), torch.randn(7, 2, 8)
    VarlenAttention()(q, q, q, parts, parts)
    assert taken == {"num_splits": 1, "window_size": (-1, 0)}


def test_a_varlen_kernel_that_cannot_be_pinned_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, k, v: q)
    with pytest.raises(BackendUnavailable, match="attention=varlen needs PyTorch 2.12 or later, .* num_splits"):
        choose_attention("varlen", torch.device("cuda"), torch.bfloat16, 64)
    assert choose_attention("auto", torch.device("cuda"), torch.bfloat16, 64)[0] == "segmentwise"
    assert "num_splits" in caplog.text


def test_varlen_takes_a_window_to_both_sides_and_heads_that_share_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, object] = {}
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *rest, **options: taken.update(options) or q)
    parts = segments(3, 4, window=2)
    VarlenAttention()(torch.randn(7, 2, 8), torch.randn(7, 1, 8), torch.randn(7, 1, 8), parts, parts)
    assert taken == {"num_splits": 1, "window_size": (2, 2), "enable_gqa": True}


def test_varlen_refuses_rows_past_the_last_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *rest, num_splits: q)
    parts, q = segments(3, 4), torch.randn(16, 2, 8)
    with pytest.raises(ValueError, match="16 queries, but segments of 7"):
        VarlenAttention()(q, q, q, parts, parts)
