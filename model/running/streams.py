"""Forwards that a CUDA device runs by itself: copies in, forwards and copies out, each on a stream of their own.

    inward   what the forward takes is copied to the device and arranged there
    compute  waits for that, then runs the forward
    outward  waits for that, then copies the vectors into pinned memory

While one pack is computed, the next one's rows are on their way to the device, and the last one's vectors on their way
back. The host waits for none of it until it asks for a result. Knows no encoder.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from model.running.faults import blame_device
from model.running.output import RunnerOutput

Arranged = TypeVar("Arranged")


@dataclass(frozen=True, slots=True, eq=False)
class DeviceOutput:
    """A `RunnerOutput` whose arrays are still on the device, in any dtype."""

    pooled: Tensor
    tokens: Tensor | None
    computed_tokens: int
    merged_tokens: int = 1


class Cuda(Protocol):
    """What is used of `torch.cuda`."""

    @property
    def Stream(self) -> Any: ...
    @property
    def Event(self) -> Any: ...
    def stream(self, stream: Any) -> Any: ...
    def synchronize(self, device: torch.device) -> None: ...


class Streams:
    """Three streams of one device. One thread at a time calls `begin`."""

    def __init__(self, device: torch.device, cuda: Cuda = torch.cuda) -> None:
        self.device, self._cuda = device, cuda
        self._inward, self._compute, self._outward = (cuda.Stream(device) for _ in range(3))
        # Another stream has put the weights there.
        cuda.synchronize(device)

    def begin(self, arrange: Callable[[], Arranged], forward: Callable[[Arranged], DeviceOutput]) -> "Begun":
        """Hands over one forward, behind all that were begun before.

        arrange: brings what the forward takes to the device. It may wait for that, which is not waiting for a forward.
        forward: asks the device nothing. Raises what the two raise, `DeviceOutOfMemory` and `DeviceLost`.
        """
        try:
            return self._begin(arrange, forward)
        except Exception as error:
            # What was launched may still read memory that would go to the next pack as soon as the exception ends.
            with suppress(Exception):
                self._cuda.synchronize(self.device)
            blame_device(error, self.device)
            raise

    def _begin(self, arrange: Callable[[], Arranged], forward: Callable[[Arranged], DeviceOutput]) -> "Begun":
        began, ended = (self._cuda.Event(enable_timing=True) for _ in range(2))
        copied_in, copied_out = (self._cuda.Event() for _ in range(2))
        with self._cuda.stream(self._inward):
            arranged = arrange()
            copied_in.record(self._inward)
        self._compute.wait_event(copied_in)
        with self._cuda.stream(self._compute):
            began.record(self._compute)
            output = forward(arranged)
            pooled = output.pooled.float()
            tokens = None if output.tokens is None else output.tokens.float()
            ended.record(self._compute)
        self._outward.wait_event(ended)
        with self._cuda.stream(self._outward):
            on_host = replace(output, pooled=_brought(pooled), tokens=None if tokens is None else _brought(tokens))
            copied_out.record(self._outward)
        # Memory of one stream that another one reads must not be freed before it has been read.
        kept = (arranged, pooled, tokens)
        return Begun(self.device, on_host, kept, (copied_in, began, ended, copied_out))


class Begun:
    """A forward that the device has been given. busy_s: how long the device worked on it; 0.0 before `result`."""

    def __init__(
        self, device: torch.device, on_host: DeviceOutput, kept: object, events: tuple[Any, Any, Any, Any]
    ) -> None:
        """on_host: what is being copied. kept: memory that the device reads until then. events: when the inward copies
        are made, when the forward begins and ends, when the outward copies are made."""
        self._device, self._on_host, self._kept = device, on_host, kept
        self._copied_in, self._began, self._ended, self._copied_out = events
        self.busy_s = 0.0

    def wait_until_copied(self) -> None:
        """Until what it copies to the device is there, so that the host may write over it."""
        self._copied_in.synchronize()

    def result(self) -> RunnerOutput:
        """Waits for the vectors. Raises `DeviceOutOfMemory` or `DeviceLost`, and whatever the device reports."""
        try:
            self._copied_out.synchronize()
            self.busy_s = self._began.elapsed_time(self._ended) / 1000
            return _in_numpy(self._on_host)
        except Exception as error:
            blame_device(error, self._device)
            raise
        finally:
            self._kept = None


def _brought(x: Tensor) -> Tensor:
    """What will be in pinned memory once the copies of this stream are made."""
    return pinned(x.shape, x.dtype).copy_(x, non_blocking=True)


def _in_numpy(output: DeviceOutput) -> RunnerOutput:
    # Pooled vectors may be held for long, and pinned memory is dear. Token vectors are copied image by image anyway.
    return RunnerOutput(
        output.pooled.numpy().copy(),
        None if output.tokens is None else output.tokens.numpy(),
        output.computed_tokens,
        output.merged_tokens,
    )


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory of the host that a CUDA device copies from and to by itself. Without one, any memory."""
    return torch.empty(*shape, dtype=dtype, pin_memory=torch.cuda.is_available())
