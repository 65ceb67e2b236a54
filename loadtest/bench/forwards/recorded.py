"""A forward recorded as a CUDA graph, to check that it equals an eager one. Needs CUDA.

It follows PyTorch's notes on CUDA graphs: a few forwards on a side stream first, inputs at fixed addresses, and a copy
of the output out of the graph's memory.
"""

from dataclasses import replace

import torch
from torch import Tensor

from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import Encoder

_FORWARDS_BEFORE = 3


class RecordedForward:
    """One encoder at one shape: a fixed number of rows and of segments."""

    def __init__(self, encoder: Encoder, patches: Tensor, arrangement: Arrangement) -> None:
        """The graph keeps the host's offsets of this pack, so the kernels must read offsets from the device."""
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
        """Pooled vectors of another pack of the same shape."""
        self._patches.copy_(patches)
        self._arrangement.positions.copy_(arrangement.positions)
        self._arrangement.segments.cu_seqlens.copy_(arrangement.segments.cu_seqlens)
        self._graph.replay()
        return self._pooled.clone()
