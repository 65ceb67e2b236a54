"""A checkpoint on a device: packs in, float32 arrays out.

The only module that moves data between host and device. Knows nothing of images, requests or threads: one caller at
a time.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint.load import Checkpoint
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tower import Arrangement, Encoder, EncoderOutput
from model.errors import BackendUnavailable, CheckpointError
from model.kernels.attention import AttentionName, choose_attention
from model.kernels.hardware import has_native_bfloat16
from model.kernels.linear import Linear, choose_linear
from model.pack import PackedBatch, pack
from model.running.faults import blame_device
from model.running.shares import Share, cut, in_order, token_places
from model.running.workers import Workers

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Changes whenever the same bytes would become other patch rows: old vectors do not mix with new ones then.
_PREPROCESSING = "exif, white under alpha, pillow {} uint8, 1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RunnerOutput:
    """pooled: float32 `[S, E]`, one row a segment, not normalised. tokens: float32 `[N, D]`, or None if not asked for.

    computed_tokens: rows that the encoder's layers really went through, filler included; class tokens are neither image
    tokens nor padding, and in no count. merged_tokens: how many tokens of the pack each of `tokens` is.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    computed_tokens: int
    merged_tokens: int = 1


class Runner:
    """One encoder with its weights on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        dtype: DtypeName = "auto",
        attention: AttentionName = "auto",
        feature_layer: int | None = None,
    ) -> None:
        """Raises `BackendUnavailable` for a device, dtype or attention backend that is not to be had here.

        feature_layer: which of Transformers' `hidden_states` token vectors are, without the final norm (LLaVA takes
        -2); None for its `last_hidden_state`. Raises `CheckpointError` for one that the model does not have.
        """
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        features_after = None if feature_layer is None else _blocks_before(feature_layer, checkpoint)
        self._encoder, self.attention = self._build(checkpoint, attention, features_after)
        self._cuts_packs = self.device.type == "cpu"
        self._workers: Workers | None = None
        self._set_normalisation(checkpoint.preprocessing)
        config, geometry = checkpoint.config, checkpoint.preprocessing.geometry
        self.width = config.embedding_width
        self._encoder_width = config.width
        self.token_width = config.token_width
        self.patch_size = config.patch_size
        self.parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
        self._fixed_grid = geometry.tile_grid if geometry.fixed else None
        self._factor, self._merged_tokens = geometry.native_factor, geometry.merged_tokens
        self._identity: dict[str, object] = {
            "weights": checkpoint.digest,
            "config": asdict(config),
            "mean": checkpoint.preprocessing.mean,
            "std": checkpoint.preprocessing.std,
            "dtype": self.dtype_name,
            "preprocessing": _PREPROCESSING.format(geometry.resample),
        }
        if geometry.fixed:
            self._identity["input"] = asdict(geometry.fixed)
        if "anyres" in geometry.strategies:
            # Of the vectors of one strategy alone; but which strategy made them, an index does not know.
            self._identity["tiles"] = [geometry.tile_side, geometry.tile_layouts]
        if features_after is not None:
            self._identity["feature_layer"] = features_after

    def _build(
        self, checkpoint: Checkpoint, attention: AttentionName, features_after: int | None
    ) -> tuple[Encoder, str]:
        """The encoder with its weights on the device, and the name of its attention backend."""
        config = checkpoint.config
        name, backend = choose_attention(attention, self.device, self.dtype, config.width // config.heads)
        positions = config.positions(checkpoint.tensors, self.device)
        with torch.device("meta"):
            encoder = config.encoder(
                positions=positions,
                attention=backend,
                kernel=choose_linear(self.device, self.dtype),
                features_after=features_after,
            )
        encoder.load_state_dict(config.encoder_weights(checkpoint.tensors), assign=True)
        encoder.to(self.device, self.dtype).eval()
        for layer in encoder.modules():
            if isinstance(layer, Linear):
                layer.prepare()
        return encoder, name

    def _set_normalisation(self, preprocessing: Preprocessing) -> None:
        patch_pixels = preprocessing.geometry.patch_size**2
        self._mean, self._std = (
            torch.tensor(values, device=self.device).mul(255).repeat(patch_pixels)  # [3*P*P]
            for values in (preprocessing.mean, preprocessing.std)
        )

    @property
    def encoder(self) -> Encoder:
        """What `run` runs, for those who measure it by itself."""
        return self._encoder

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def fingerprint(self, *, decode: str = "exact") -> str:
        """16 hexadecimal digits that name weights, shape of the model, dtype, preprocessing (with the tiles that AnyRes
        may choose from) and decode mode.

        Vectors with different ones do not belong in one index. Device and attention backend are not in it: they change
        last bits, not vectors."""
        identity = json.dumps(self._identity | {"decode": decode}, sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    @torch.inference_mode()
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        """One forward of the whole pack. `tokens`: return every token's vector too, in the order of the rows
        (where tokens are merged, of what they are merged into).

        Raises `DeviceOutOfMemory` and `DeviceLost`, and anything that a kernel may raise."""
        try:
            return self._run(batch, tokens=tokens)
        except Exception as error:
            blame_device(error, self.device)
            raise

    def _run(self, batch: PackedBatch, *, tokens: bool) -> RunnerOutput:
        shares = cut(batch, torch.get_num_threads(), width=self._encoder_width) if self._cuts_packs else []
        if len(shares) < 2:
            output = self._forward(batch, self._encoder.arrange(batch))
            return self._returned(output, batch, tokens=tokens)
        # Arranged here, one after another: positions are kept for the packs to come.
        arranged = [(share.batch, self._encoder.arrange(share.batch)) for share in shares]
        outputs = self._workers_for(len(shares)).each(lambda part: self._forward(*part), arranged)
        returned = [
            self._returned(output, share.batch, tokens=tokens) for output, share in zip(outputs, shares, strict=True)
        ]
        return _joined(returned, shares, batch)

    def _returned(self, output: EncoderOutput, batch: PackedBatch, *, tokens: bool) -> RunnerOutput:
        return RunnerOutput(
            pooled=_to_host(output.pooled),
            tokens=_to_host(output.tokens) if tokens else None,
            computed_tokens=batch.tokens + output.filler_rows,
            merged_tokens=self._merged_tokens,
        )

    def _workers_for(self, count: int) -> Workers:
        if self._workers is None or self._workers.count < count:
            self._workers = Workers(count)
        return self._workers

    @torch.inference_mode()
    def _forward(self, batch: PackedBatch, arrangement: Arrangement) -> EncoderOutput:
        output: EncoderOutput = self._encoder(self.patches(batch), arrangement)
        return output

    def patches(self, batch: PackedBatch) -> Tensor:
        """`[T, 3*P*P]`, normalised, on the device, in the dtype of the weights."""
        rows = torch.from_numpy(batch.rows).to(self.device)
        return rows.float().sub_(self._mean).div_(self._std).to(self.dtype)

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Runs one pack of gray segments of these lengths, so that no caller pays for what a device does once.

        A model of one grid runs as many segments of its own as take no more tokens than these, and at least one.
        """
        factor = self._factor
        grids = [(factor, max(1, tokens // factor**2) * factor) for tokens in lengths]
        if self._fixed_grid:
            grids = [self._fixed_grid] * max(1, sum(lengths) // math.prod(self._fixed_grid))
        self.run(pack([np.full((h * w, 3 * self.patch_size**2), 128, dtype=np.uint8) for h, w in grids], grids))


def _blocks_before(feature_layer: int, checkpoint: Checkpoint) -> int:
    """How many blocks come before the layer: -1 counts from behind the last, as in Transformers' `hidden_states`."""
    depth = checkpoint.config.depth
    if not -depth - 1 <= feature_layer <= depth:
        raise CheckpointError(
            f"feature_layer is {feature_layer}; {checkpoint.name} has {depth} layers: from {-depth - 1} to {depth}"
        )
    return feature_layer % (depth + 1)


def _joined(parts: Sequence[RunnerOutput], shares: Sequence[Share], batch: PackedBatch) -> RunnerOutput:
    """What the whole pack would have returned, in its own order."""
    merged = parts[0].merged_tokens
    tokens = [part.tokens for part in parts if part.tokens is not None]
    places = [token_places(batch.cu_seqlens // merged, share.segments) for share in shares]
    return RunnerOutput(
        pooled=in_order([part.pooled for part in parts], [share.segments for share in shares]),
        tokens=in_order(tokens, places) if tokens else None,
        computed_tokens=sum(part.computed_tokens for part in parts),
        merged_tokens=merged,
    )


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
