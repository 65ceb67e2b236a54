"""A checkpoint on a device: packs in, float32 arrays out.

The only module that moves data between host and device. Knows nothing of images, requests or threads: one caller at
a time.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.attention import AttentionName, Segments, choose_attention
from model.checkpoint import Checkpoint
from model.encoders.naflex import EncoderOutput, NaFlexEncoder, encoder_weights
from model.errors import BackendUnavailable
from model.faults import device_error
from model.linear import choose_linear, has_native_bfloat16, pad_rows
from model.pack import PackedBatch, pack
from model.positions import PositionTable

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Changes whenever the same bytes would become other patch rows: old vectors do not mix with new ones then.
_PREPROCESSING = "exif, white under alpha, pillow bilinear uint8, 1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RunnerOutput:
    """pooled: float32 `[S, D]`, one row a segment, not normalised. tokens: float32 `[T, D]`, or None if not asked for.

    computed_tokens: rows that the encoder's layers really went through, filler included.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    computed_tokens: int


class Runner:
    """One encoder with its weights on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        dtype: DtypeName = "auto",
        attention: AttentionName = "auto",
    ) -> None:
        """Raises `BackendUnavailable` for a device, dtype or attention backend that is not to be had here."""
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        config = checkpoint.config
        head_width = config.width // config.heads
        self.attention, backend = choose_attention(attention, self.device, self.dtype, head_width)
        kernel = choose_linear(self.device, self.dtype)
        with torch.device("meta"):
            encoder = NaFlexEncoder(config, attention=backend, kernel=kernel)
        encoder.load_state_dict(encoder_weights(checkpoint.tensors, config), assign=True)
        self._encoder = encoder.to(self.device, self.dtype).eval()
        self._row_multiple = kernel.row_multiple
        table = checkpoint.tensors["embeddings.position_embedding.weight"]
        self._positions = PositionTable(
            table.view(config.table_side, config.table_side, config.width), device=self.device
        )
        patch_pixels = config.patch_size**2
        self._mean = torch.tensor(checkpoint.mean, device=self.device).mul(255).repeat(patch_pixels)  # [3*P*P]
        self._std = torch.tensor(checkpoint.std, device=self.device).mul(255).repeat(patch_pixels)
        self.width = config.width
        self.patch_size = config.patch_size
        self.parameters = sum(weight.numel() for weight in self._encoder.parameters())
        self._identity = {
            "weights": checkpoint.digest,
            "config": asdict(config),
            "mean": checkpoint.mean,
            "std": checkpoint.std,
            "dtype": self.dtype_name,
            "preprocessing": _PREPROCESSING,
        }

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def fingerprint(self, *, decode: str = "exact") -> str:
        """16 hexadecimal digits that name weights, shape of the model, dtype, preprocessing and decode mode.

        Vectors with different ones do not belong in one index. Device and attention backend are not in it: they change
        last bits, not vectors."""
        identity = json.dumps(self._identity | {"decode": decode}, sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    @torch.inference_mode()
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        """One forward of the whole pack. `tokens`: return every token's vector too, in the order of the rows.

        Raises `DeviceOutOfMemory` and `DeviceLost`, and anything that a kernel may raise."""
        try:
            return self._run(batch, tokens=tokens)
        except Exception as error:
            found = device_error(error, self.device)
            if found is error:
                raise
            raise found from error

    def _run(self, batch: PackedBatch, *, tokens: bool) -> RunnerOutput:
        output = self._forward(batch)
        kept = output.tokens[: batch.tokens]
        return RunnerOutput(
            pooled=_to_host(output.pooled),
            tokens=_to_host(kept) if tokens else None,
            computed_tokens=len(output.tokens),
        )

    def _forward(self, batch: PackedBatch) -> EncoderOutput:
        offsets = tuple(batch.cu_seqlens.tolist())
        rows = torch.from_numpy(batch.rows).to(self.device)
        patches = ((rows.float() - self._mean) / self._std).to(self.dtype)
        positions = self._positions.gather(batch.grids, batch.kept, offsets)
        cu_seqlens = torch.from_numpy(batch.cu_seqlens).to(self.device)
        segments = Segments(offsets, cu_seqlens, batch.max_seqlen)
        output: EncoderOutput = self._encoder(
            pad_rows(patches, self._row_multiple), pad_rows(positions, self._row_multiple), segments
        )
        return output

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Runs one pack of gray segments of these lengths, so that no caller pays for what a device does once."""
        rows = [np.full((tokens, 3 * self.patch_size**2), 128, dtype=np.uint8) for tokens in lengths]
        self.run(pack(rows, [(1, tokens) for tokens in lengths]))


def _to_host(x: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = x.float().cpu().numpy()
    return array


def default_device() -> str:
    """The first CUDA device where there is one, else the CPU."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendUnavailable(f"device is {name!r}; this machine shows {torch.cuda.device_count()} CUDA devices")
    return device


def _dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    if name != "auto":
        if name not in _DTYPES:
            raise BackendUnavailable(f"dtype is {name!r}; it is one of {', '.join(get_args(DtypeName))}")
        return _DTYPES[name]
    return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return has_native_bfloat16()
