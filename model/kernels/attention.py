"""Attention within each segment of a pack. Three backends have one signature.

| backend       | where                                | how                                                        |
|---------------|--------------------------------------|------------------------------------------------------------|
| `varlen`      | CUDA, sm80 and later, bf16 and fp16  | one varlen kernel over the whole pack                      |
| `products`    | CPUs that multiply bf16, in bf16     | two batched matrix products and a softmax per segment      |
| `segmentwise` | everywhere                           | one `scaled_dot_product_attention` call per segment        |

Short neighbours of one length share a call, which gives each the bits of a call of its own.

The backend is chosen once, when a model is loaded. Knows nothing of images, positions or weights.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.errors import BackendUnavailable
from model.kernels.hardware import has_native_bfloat16

AttentionName = Literal["auto", "varlen", "products", "segmentwise"]

# Measured in float32: the bits depend on the number of threads with 1 to 3 queries, and not with 4 or more.
_CPU_FEWEST_QUERIES = 16
# How many scores `products` holds at a time: about as many as a core's own caches do. In long segments it takes few
# heads at a time, since few queries would starve the matrix products. Measured from 63 to 1,024 tokens.
_SCORES_AT_ONCE = 2**20
_FEWEST_QUERIES_AT_ONCE = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Where segments begin and end in a sequence, on the host and on the device.

    offsets: S+1 ints from 0 to the number of tokens. cu_seqlens: the same, int32 `[S+1]` on the device.
    max_seqlen: the length of the longest segment, or an upper bound. causal: a token attends only to those up to
    itself.
    """

    offsets: tuple[int, ...]
    cu_seqlens: Tensor
    max_seqlen: int
    causal: bool = False

    @classmethod
    def at(
        cls, offsets: NDArray[np.int32], max_seqlen: int, device: torch.device, *, causal: bool = False
    ) -> "Segments":
        """offsets: int32 `[S+1]` on the host, from 0."""
        return cls(tuple(offsets.tolist()), torch.from_numpy(offsets).to(device), max_seqlen, causal)

    @classmethod
    def singles(cls, count: int, device: torch.device) -> "Segments":
        """`count` segments of one token each."""
        cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=device)
        return cls(tuple(range(count + 1)), cu_seqlens, 1)

    @property
    def count(self) -> int:
        return len(self.offsets) - 1


class Attention(Protocol):
    """softmax(q @ k.T / sqrt(d)) @ v, where the queries of segment i attend to the keys of segment i only.

    q: `[Tq, H, d]`, k and v: `[Tk, H, d]`, the last dimension contiguous; returns `[Tq, H, d]`. `queries` and `keys`
    have the same number of segments. Causal `queries` are the `keys` too. Rows past the last offset belong to no
    segment. They come out as zeros, and only backends for devices that need filler rows accept them.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor: ...


def segmentwise_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """One call per segment. Work grows with the sum of squared lengths; no segment's bits depend on another."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    out[queries.offsets[-1] :] = 0
    fewest = _CPU_FEWEST_QUERIES if q.device.type == "cpu" else 1
    for count, query_rows, key_rows in _runs(queries, keys, q.shape[1]):
        part = _in_rows(q[query_rows], count)
        length = part.shape[2]
        if length < fewest:
            part = F.pad(part, (0, 0, 0, fewest - length))
        attended = F.scaled_dot_product_attention(
            part, _in_rows(k[key_rows], count), _in_rows(v[key_rows], count), is_causal=queries.causal
        )
        out[query_rows] = attended[:, :, :length].transpose(1, 2).flatten(0, 1)
    return out


def _in_rows(x: Tensor, count: int) -> Tensor:
    """`[count * n, H, d]` as `[count, H, n, d]`."""
    return x.view(count, -1, *x.shape[1:]).transpose(1, 2)


def products_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """Two batched products and a softmax between them, for some heads and queries of one segment at a time.

    Scores are rounded to the dtype once, after scaling. The softmax is computed in float32. How a segment's heads and
    queries are split depends only on its length and the number of heads.
    """
    if queries is not keys:
        return segmentwise_attention(q, k, v, queries, keys)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    out[queries.offsets[-1] :] = 0
    heads = q.shape[1]
    lengths = {end - start for start, end in pairwise(queries.offsets)}
    memory = q.new_empty(max([_SCORES_AT_ONCE, *(math.prod(_tile(length, heads)) * length for length in lengths)]))
    for count, rows, _ in _runs(queries, keys, heads):
        # The products read the rows of one head at a time: [H, count * n, d].
        some_q, some_k, some_v = (x[rows].transpose(0, 1).contiguous() for x in (q, k, v))
        target = out[rows].transpose(0, 1)
        if count == 1:
            _attend_in_tiles(some_q, some_k, some_v, memory, target, causal=queries.causal)
        else:
            some_q, some_k, some_v = (x.view(heads * count, -1, x.shape[2]) for x in (some_q, some_k, some_v))
            length, attended = some_q.shape[1], torch.empty_like(some_q)
            mask = _mask(0, length, length) if queries.causal else None
            _attend_by_products(some_q, some_k, some_v, memory, attended, mask)
            target.copy_(attended.view(target.shape))
    return out


def _attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, memory: Tensor, out: Tensor, *, causal: bool) -> None:
    """One segment. All: `[H, n, d]`."""
    heads, length = q.shape[:2]
    heads_at_once, queries_at_once = _tile(length, heads)
    for some in _slices(0, heads, heads_at_once):
        for rows in _slices(0, length, queries_at_once):
            mask = _mask(rows.start, rows.stop, length) if causal else None
            _attend_by_products(q[some, rows], k[some], v[some], memory, out[some, rows], mask)


def _runs(queries: Segments, keys: Segments, heads: int) -> Iterator[tuple[int, slice, slice]]:
    """Neighbours whose lengths are equal: how many, and their rows among the queries and the keys.

    As many at once as `_SCORES_AT_ONCE` allows, and at least one.
    """
    pairs = zip(pairwise(queries.offsets), pairwise(keys.offsets), strict=True)
    for (wide, long), run in groupby(pairs, key=lambda pair: (pair[0][1] - pair[0][0], pair[1][1] - pair[1][0])):
        equal = list(run)
        at_once = max(1, _SCORES_AT_ONCE // (heads * max(wide, _CPU_FEWEST_QUERIES) * long))
        for some in _slices(0, len(equal), at_once):
            (first_query, first_key), (last_query, last_key) = equal[some][0], equal[some][-1]
            yield some.stop - some.start, slice(first_query[0], last_query[1]), slice(first_key[0], last_key[1])


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
    queries = _even(length, max(_FEWEST_QUERIES_AT_ONCE, _SCORES_AT_ONCE // (heads * length)))
    return _even(heads, max(1, _SCORES_AT_ONCE // (queries * length))), queries


def _even(count: int, at_most: int) -> int:
    """The largest part when `count` is split evenly into the fewest parts of at most `at_most`."""
    return math.ceil(count / math.ceil(count / at_most))


def _slices(start: int, end: int, at_once: int) -> Iterator[slice]:
    for first in range(start, end, at_once):
        yield slice(first, min(first + at_once, end))


class VarlenAttention:
    """PyTorch's varlen kernel, pinned to one split of the keys so that the batch cannot change the bits."""

    def __init__(self) -> None:
        self._kernel = _varlen_kernel()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
        if queries.offsets[-1] != len(q):
            # The kernel would leave these rows unwritten, and NaNs there would spread from the next layer on.
            raise ValueError(f"{len(q)} queries, but segments of {queries.offsets[-1]}")
        offsets = queries.cu_seqlens, keys.cu_seqlens, queries.max_seqlen, keys.max_seqlen
        causal = {"window_size": (-1, 0)} if queries.causal else {}
        out: Tensor = self._kernel(q, k, v, *offsets, num_splits=1, **causal)
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
    if head_width % 8 or head_width > 256:
        return f"heads whose width is a multiple of 8, up to 256, and these have {head_width}"
    if "num_splits" not in inspect.signature(_varlen_kernel()).parameters:
        # Without it the batch chooses the order of a sum, and with it the bits.
        return f"PyTorch 2.12 or later, whose kernel takes num_splits, and this is {torch.__version__}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"compute capability 8.0 or later, and this is {major}.{minor}"
    return None
