"""Attention with one block-diagonal mask over the whole pack: the reference for the backends, and a contender.

Its work is the square of the pack's tokens, so nothing serves it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.kernels.attention import Segments


def dense_attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """One call over all tokens, with the signature of `model.kernels.attention.Attention`."""
    tokens_q, tokens_k = queries.offsets[-1], keys.offsets[-1]
    out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q[:tokens_q], k[:tokens_k], v[:tokens_k]))  # [1, H, T, d]
    mask = block_diagonal_mask(queries, keys)
    grouped = q.shape[1] != k.shape[1]
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    out[:tokens_q] = attended.squeeze(0).transpose(0, 1)
    return out


def block_diagonal_mask(queries: Segments, keys: Segments) -> Tensor:
    """bool `[Tq, Tk]`: true if query and key belong to segments of the same number, and if causal, the key is no later
    than the query, and if there is a window, no farther from it than that."""
    mask = _segment_numbers(queries)[:, None] == _segment_numbers(keys)[None, :]
    if queries.window is not None:
        mask = mask.tril(queries.window).triu(-queries.window)
    return mask.tril() if queries.causal else mask


def _segment_numbers(segments: Segments) -> Tensor:
    lengths = segments.cu_seqlens.diff()
    return torch.arange(segments.count, device=lengths.device).repeat_interleave(lengths)
