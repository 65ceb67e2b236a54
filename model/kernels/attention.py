"""Attention within each segment of a pack. Three backends have one signature.

| backend       | where                                | how                                                        |
|---------------|--------------------------------------|------------------------------------------------------------|
| `varlen`      | CUDA, sm80 and later, bf16 and fp16  | one varlen kernel over the whole pack                      |
| `products`    | CPUs that multiply bf16, in bf16     | two batched matrix products and a softmax per segment      |
| `segmentwise` | everywhere                           | one `scaled_dot_product_attention` call per segment        |

Short neighbours of one length share a call, which gives each the bits of a call of its own. A long segment with a
window is taken in blocks of queries, each against the keys that its window reaches: work grows with the window.

The backend is chosen once, when a model is loaded. Knows nothing of images, positions or weights.
"""

import inspect
import logging
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import BackendUnavailable
from model.kernels.hardware import has_native_bfloat16
from model.kernels.segments import CPU_FEWEST_QUERIES, SCORES_AT_ONCE, even, runs, slices
from model.kernels.segments import Segments as Segments

AttentionName = Literal["auto", "varlen", "products", "segmentwise"]

# In long segments `products` takes few heads at a time, since few queries would starve the matrix products.
_FEWEST_QUERIES_AT_ONCE = 256
_VARLEN_WIDEST = 256
_ALIGNED_BYTES = 16

_log = logging.getLogger(__name__)


class Attention(Protocol):
    """softmax(q @ k.T / sqrt(d)) @ v, where the queries of segment i attend to the keys of segment i only.

    q: `[Tq, H, d]`, k and v: `[Tk, G, d]`, the last dimension contiguous; returns `[Tq, H, d]`. H is a multiple of G:
    head h attends to the keys and values of head h // (H / G). `queries` and `keys` have the same number of segments.
    `queries` that are causal or have a window are the `keys` too. Rows past the last offset belong to no segment. They
    come out as zeros, and only backends for devices that need filler rows accept them.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor: ...


def segmentwise_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """One call per segment. Work grows with the sum of squared lengths; no segment's bits depend on another."""
    width, scale = q.shape[2], q.shape[2] ** -0.5
    q, k, v = _aligned(q), _aligned(k), _aligned(v)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    out[queries.offsets[-1] :] = 0
    for count, query_rows, key_rows in runs(queries, keys, q.shape[1]):
        target, some_q = _in_rows(out[query_rows], count), _in_rows(q[query_rows], count)
        some_k, some_v = _in_rows(k[key_rows], count), _in_rows(v[key_rows], count)
        if not queries.has_blocks(some_q.shape[2]):
            target.copy_(_attend_at_once(some_q, some_k, some_v, scale=scale, causal=queries.causal))
            continue
        for rows, within, mask in queries.blocks(some_q.shape[2]):
            parts = some_q[:, :, rows], some_k[:, :, within], some_v[:, :, within]
            target[:, :, rows] = _attend_at_once(*parts, scale=scale, mask=mask)
    return out[:, :, :width]


def _aligned(heads: Tensor) -> Tensor:
    """Heads whose width is a multiple of 16 bytes, with zeros added: `[T, H, d]`.

    Otherwise it depends on the rows before a segment at which fraction of 16 bytes it begins, and products on a CPU
    round by that.
    """
    missing = -heads.shape[2] % (_ALIGNED_BYTES // heads.element_size())
    return F.pad(heads, (0, missing)) if missing else heads


def _attend_at_once(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """q: `[count, H, m, d]`, k and v: `[count, G, n, d]`. mask: bool `[m, n]`, true where a query attends to a key."""
    queries = q.shape[2]
    filler = max(0, CPU_FEWEST_QUERIES - queries) if q.device.type == "cpu" else 0
    if filler:
        q = F.pad(q, (0, 0, 0, filler))
        mask = None if mask is None else F.pad(mask, (0, 0, 0, filler), value=True)
    grouped = q.shape[1] != k.shape[1]
    attended = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    return attended[:, :, :queries]


def _in_rows(x: Tensor, count: int) -> Tensor:
    """`[count * n, H, d]` as `[count, H, n, d]`."""
    return x.view(count, -1, *x.shape[1:]).transpose(1, 2)


def products_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """Two batched products and a softmax between them, for some heads and queries of one segment at a time.

    Scores are rounded to the dtype once, after scaling. The softmax is computed in float32. How a segment's heads and
    queries are split depends only on its length, its window and the number of heads.
    """
    if queries is not keys:
        return segmentwise_attention(q, k, v, queries, keys)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    out[queries.offsets[-1] :] = 0
    heads, shared = q.shape[1], q.shape[1] // k.shape[1]
    lengths = {end - start for start, end in pairwise(queries.offsets)}
    memory = q.new_empty(max([SCORES_AT_ONCE, *(math.prod(_tile(length, heads)) * length for length in lengths)]))
    for count, rows, _ in runs(queries, keys, heads):
        # The products read the rows of one head at a time: [H, count * n, d].
        some_q = q[rows].transpose(0, 1).contiguous()
        some_k, some_v = (x[rows].transpose(0, 1).repeat_interleave(shared, 0).contiguous() for x in (k, v))
        target = out[rows].transpose(0, 1)
        if count == 1:
            _attend_in_tiles(some_q, some_k, some_v, memory, target, queries)
        else:
            some_q, some_k, some_v = (x.view(heads * count, -1, x.shape[2]) for x in (some_q, some_k, some_v))
            attended = torch.empty_like(some_q)
            _attend_in_tiles(some_q, some_k, some_v, memory, attended, queries)
            target.copy_(attended.view(target.shape))
    return out


def _attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, memory: Tensor, out: Tensor, segments: Segments) -> None:
    """Segments of one length. All: `[h, n, d]`."""
    heads, length = q.shape[:2]
    for block, keys, attends in segments.blocks(length):
        heads_at_once, queries_at_once = _tile(keys.stop - keys.start, heads)
        for some in slices(0, heads, heads_at_once):
            for rows in slices(block.start, block.stop, queries_at_once):
                mask = _mask(rows.start, rows.stop, length) if segments.causal else None
                if attends is not None:
                    mask = ~attends[rows.start - block.start : rows.stop - block.start]
                _attend_by_products(q[some, rows], k[some, keys], v[some, keys], memory, out[some, rows], mask)


def _attend_by_products(
    q: Tensor, k: Tensor, v: Tensor, memory: Tensor, out: Tensor, mask: Tensor | None = None
) -> None:
    """q and out: `[h, m, d]`, k and v: `[h, n, d]`. memory: room for at least h * m * n scores. mask: bool `[m, n]`,
    true for keys that a query does not attend to."""
    shape = len(q), q.shape[1], k.shape[1]
    scores = memory[: math.prod(shape)].view(shape)
    torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5, out=scores)
    if mask is not None:
        scores.masked_fill_(mask, -math.inf)
    torch.softmax(scores, -1, out=scores)
    torch.bmm(scores, v, out=out)


def _mask(first: int, end: int, keys: int) -> Tensor:
    """bool `[end - first, keys]`: true for the keys that follow each of these queries."""
    return torch.ones(end - first, keys, dtype=torch.bool).triu_(1 + first)


def _tile(length: int, heads: int) -> tuple[int, int]:
    """How many heads and how many queries of a segment to take at a time."""
    queries = even(length, max(_FEWEST_QUERIES_AT_ONCE, SCORES_AT_ONCE // (heads * length)))
    return even(heads, max(1, SCORES_AT_ONCE // (queries * length))), queries


class VarlenAttention:
    """PyTorch's varlen kernel, pinned to one split of the keys so that the batch cannot change the bits."""

    def __init__(self) -> None:
        self._kernel = _varlen_kernel()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
        if queries.offsets[-1] != len(q):
            # The kernel would leave these rows unwritten, and NaNs there would spread from the next layer on.
            raise ValueError(f"{len(q)} queries, but segments of {queries.offsets[-1]}")
        offsets = queries.cu_seqlens, keys.cu_seqlens, queries.max_seqlen, keys.max_seqlen
        options: dict[str, Any] = {"window_size": (-1, 0)} if queries.causal else {}
        if queries.window is not None:
            options["window_size"] = (queries.window, queries.window)
        if q.shape[1] != k.shape[1]:
            options["enable_gqa"] = True
        out: Tensor = self._kernel(q, k, v, *offsets, num_splits=1, **options)
        return out


def _varlen_kernel() -> Callable[..., Any]:
    from torch.nn.attention import varlen

    return varlen.varlen_attn


def choose_attention(
    name: AttentionName, device: torch.device, dtype: torch.dtype, head_width: int
) -> tuple[str, Attention]:
    """The name and function of a backend; `auto` takes the best one for the device, dtype and width d of a head.

    Raises `BackendUnavailable` for a backend that cannot run here.
    """
    if name not in get_args(AttentionName):
        raise BackendUnavailable(f"attention is {name!r}; it is one of {', '.join(get_args(AttentionName))}")
    if name == "auto":
        name = _best(device, dtype, head_width)
    if name == "varlen":
        _refuse(name, _why_no_varlen(device, dtype, head_width))
        return name, VarlenAttention()
    if name == "products":
        _refuse(name, _why_no_products(device, dtype))
        return name, products_attention
    return name, segmentwise_attention


def for_width(attention: Attention, head_width: int) -> Attention:
    """The backend, or `segmentwise` for heads of a width that it does not take: those of a model may differ."""
    if isinstance(attention, VarlenAttention) and not _is_varlen_width(head_width):
        return segmentwise_attention
    return attention


def _is_varlen_width(head_width: int) -> bool:
    return head_width % 8 == 0 and head_width <= _VARLEN_WIDEST


def _best(device: torch.device, dtype: torch.dtype, head_width: int) -> AttentionName:
    lacking = _why_no_varlen(device, dtype, head_width)
    if not lacking:
        return "varlen"
    if device.type == "cuda":
        _log.warning("attention runs segment by segment: the varlen kernel needs %s", lacking)
    return "segmentwise" if _why_no_products(device, dtype) else "products"


def _refuse(name: AttentionName, lacking: str | None) -> None:
    if lacking:
        raise BackendUnavailable(f"attention={name} needs {lacking}; attention=auto takes what this device has")


def _why_no_products(device: torch.device, dtype: torch.dtype) -> str | None:
    """In float32 they gain nothing, and on other devices they are not measured."""
    if device.type != "cpu" or not has_native_bfloat16():
        return "a CPU that multiplies bfloat16"
    return None if dtype == torch.bfloat16 else f"dtype bfloat16, and this is {str(dtype).removeprefix('torch.')}"


def _why_no_varlen(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    if device.type != "cuda" or torch.version.hip:
        return f"a CUDA device, and this is {'ROCm' if torch.version.hip else device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"dtype bfloat16 or float16, and this is {str(dtype).removeprefix('torch.')}"
    if not _is_varlen_width(head_width):
        return f"heads whose width is a multiple of 8, up to {_VARLEN_WIDEST}, and these have {head_width}"
    if "num_splits" not in inspect.signature(_varlen_kernel()).parameters:
        # Without it the batch chooses the order of a sum, and with it the bits.
        return f"PyTorch 2.12 or later, whose kernel takes num_splits, and this is {torch.__version__}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"compute capability 8.0 or later, and this is {major}.{minor}"
    return None
