"""A forward recorded as a CUDA graph, for `python -m loadtest.bench gpu` alone: whether it equals the forward as it is.

After PyTorch's notes on CUDA graphs: a few forwards on a side stream first, inputs that stay where they are, and a
copy of the output out of the graph's own memory. Nothing here has a meaning without CUDA.
"""

from dataclasses import replace

import torch
from torch import Tensor

from model.encoders.parts.tower import Arrangement, Encoder

_FORWARDS_BEFORE = 3


class RecordedForward:
    """One encoder at one shape: so many rows, and offsets of one length."""

    def __init__(self, encoder: Encoder, patches: Tensor, arrangement: Arrangement) -> None:
        """The host's offsets are recorded as they are: only what reads them from the device may depend on them."""
        segments = replace(arrangement.segments, cu_seqlens=arrangement.segments.cu_seqlens.clone())
        self._arrangement = replace(arrangement, segments=segments, positions=arrangement.positions.clone())
        self._patches = patches.clone()
        beside = torch.cuda.Stream(patches.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(patches.device))
        with torch.cuda.stream(beside):
            for _ in range(_FORWARDS_BEFORE):
                encoder(self._patches, self._arrangement)
        torch.cuda.current_stream(patches.device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._pooled: Tensor = encoder(self._patches, self._arrangement).pooled

    def __call__(self, patches: Tensor, arrangement: Arrangement) -> Tensor:
        """The pooled vectors of another pack of the shape."""
        self._patches.copy_(patches)
        self._arrangement.positions.copy_(arrangement.positions)
        self._arrangement.segments.cu_seqlens.copy_(arrangement.segments.cu_seqlens)
        self._graph.replay()
        return self._pooled.clone()
