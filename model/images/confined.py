"""A few processes, kept warm, in which images are decoded that a thread should not decode.

A process that crashes, hangs or takes more than its share of processor time ends alone: its picture is refused, and the
next picture starts another process.
"""

import logging
import signal

import numpy as np
from numpy.typing import NDArray

from model import errors
from model.errors import BudgetError, ImageTooLarge, ModelError, UndecodableImage
from model.images import container, worker
from model.images.decode import DecodeMode, ImageHeader
from model.images.worker import Call, Fit
from model.images.workers import Worker, WorkerLost, WorkerPool
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, turn_plan

# Memory that a process may take beyond what it takes at rest: for libraries that it loads when it needs them, for each
# byte of the file, and for each pixel of `max_decode_pixels`. A JPEG 2000 of four components of 16 bits takes 28 bytes
# a pixel, and 33 where other pictures have left gaps.
_LIBRARY_BYTES = 256 * 1024**2
_BYTES_A_BYTE = 3
_BYTES_A_PIXEL = 40

# Processor time that a call may take: to begin with, for each megabyte of the file and for each megapixel.
_CPU_S = 2.0
_CPU_S_A_MEGABYTE = 0.2
_CPU_S_A_MEGAPIXEL = 0.5

_REFUSALS = {error.__name__: error for error in (errors.UnsupportedFormat, ImageTooLarge, UndecodableImage)}

_log = logging.getLogger(__name__)


class ConfinedDecoder:
    """Reads headers in one process, and decodes pixels in at most `processes` more. Each starts when it is needed.

    Every method but `close` raises `OSError` if no process can be started, or if the system or an operator kills it.
    """

    def __init__(self, *, processes: int, max_decode_pixels: int) -> None:
        self._max_decode_pixels = max_decode_pixels
        # A header must not wait until another image is decoded.
        self._headers, self._pixels = WorkerPool(1), WorkerPool(processes)

    def read_header(self, data: bytes) -> ImageHeader:
        """As `decode.read_header`."""
        with self._headers.worker() as child:
            reply, _ = self._reply(child, data, None)
        assert isinstance(reply, worker.Header)
        return reply.header

    def decode_patches(
        self, data: bytes, plan: ImagePlan, *, geometry: Geometry, decode: DecodeMode
    ) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """As `decode.decode_patches`."""
        with self._pixels.worker() as child:
            reply, rows = self._reply(child, data, Fit(plan, geometry, decode))
        assert isinstance(reply, worker.Patches)
        return turn_plan(plan, geometry=geometry) if reply.turned else plan, rows

    def close(self) -> None:
        """Ends all processes, and with them the calls under way."""
        self._headers.close()
        self._pixels.close()

    def _reply(self, child: Worker, data: bytes, fit: Fit | None) -> tuple[worker.Reply, NDArray[np.uint8]]:
        """The answer to one call. Raises `ImageError` if there is none."""
        format = container.sniff(data) or "file"
        pixels = fit.plan.size[0] * fit.plan.size[1] if fit else 0
        cpu_s = _CPU_S + _CPU_S_A_MEGABYTE * len(data) / 1e6 + _CPU_S_A_MEGAPIXEL * pixels / 1e6
        memory_bytes = _LIBRARY_BYTES + _BYTES_A_BYTE * len(data) + _BYTES_A_PIXEL * self._max_decode_pixels
        rows = np.empty((fit.plan.tokens, 3 * fit.geometry.patch_size**2) if fit else (0, 0), dtype=np.uint8)
        try:
            reply = child.call(Call(self._max_decode_pixels, memory_bytes, cpu_s, fit), data, rows)
        except WorkerLost as lost:
            _log.warning("the process that decoded a %s of %d bytes ended with %s", format, len(data), lost)
            if lost.status == -signal.SIGPROF:
                raise ImageTooLarge(f"decoding this {format} takes more than {cpu_s:.0f} s of processor time") from None
            if lost.status == -signal.SIGKILL and not lost.hung:  # by the system, short of memory, or by `close`
                raise ChildProcessError(f"the process that decoded this {format} was killed") from None
            raise UndecodableImage(f"this {format} cannot be decoded: the decoder crashed or hung") from None
        match reply:
            case worker.Refused(kind=kind, message=message, param=param):
                raise _refusal(kind, message, param)
            case worker.OutOfMemory():
                raise ImageTooLarge(
                    f"decoding this {format} takes more than {memory_bytes:,} bytes of memory, which is what "
                    f"max_decode_pixels={self._max_decode_pixels} allows"
                )
            case worker.Fault(trace=trace):
                _log.error("the decoder failed on a %s of %d bytes\n%s", format, len(data), trace)
                raise UndecodableImage(f"this {format} cannot be decoded: the decoder failed")
        return reply, rows


def _refusal(kind: str, message: str, param: str) -> ModelError:
    return BudgetError(message, param=param) if param else _REFUSALS[kind](message)
