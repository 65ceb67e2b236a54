"""A text tower on a device: packs of ids in, float32 vectors out.

Knows nothing of texts or requests. One caller at a time.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint.load import TextCheckpoint
from model.encoders.parts.text_tower import TextArrangement, TextTower
from model.kernels.attention import AttentionName, choose_attention
from model.kernels.linear import choose_linear
from model.pack import PackedTexts, pack_texts
from model.running.faults import blame_device
from model.running.fingerprint import fingerprint, old_text_fingerprints, text_identity
from model.running.output import RunnerOutput
from model.running.place import placed, threads_of, to_host
from model.running.shares import cut, join
from model.running.streams import Begun, DeviceOutput, Streams
from model.running.workers import Pool


class Texts(Protocol):
    """What embeds the texts of a model. context, vocabulary, width: as of `TextRunner`. parameters: of its own."""

    @property
    def context(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def parameters(self) -> int: ...
    def fingerprint(self, preprocessing: str) -> str: ...
    def old_fingerprints(self, preprocessing: str) -> dict[str, str]: ...
    def run(self, texts: PackedTexts) -> RunnerOutput: ...
    def begin(self, texts: PackedTexts) -> Begun: ...
    def warm_up(self, tokens: int) -> None: ...


class TextRunner:
    """One text tower with its weights on one device.

    context: the most tokens of a text; of a SigLIP model, the exact number. vocabulary: ids are below it. width: of a
    vector.
    """

    def __init__(
        self,
        checkpoint: TextCheckpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        int8: bool = False,
        attention: AttentionName = "auto",
        pool: Pool | None = None,
        streams: Streams | None = None,
    ) -> None:
        """int8: as `choose_linear` takes it. pool: to compute in, perhaps shared. streams: of a device that works by
        itself. Raises `BackendUnavailable` for an attention backend that this machine lacks."""
        config = checkpoint.config
        self.context = config.context
        self.vocabulary = config.vocabulary
        self.width = config.embedding_width
        self.parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
        self._checkpoint_digest = checkpoint.digest
        self._config = config
        self._device = device
        self._dtype_name = "int8" if int8 else str(dtype).removeprefix("torch.")
        self._pool, self._streams = pool or Pool(), streams
        _, backend = choose_attention(attention, device, dtype, config.width // config.heads)
        positions = config.positions(checkpoint.tensors, device)
        with torch.device("meta"):
            kernel = choose_linear(device, dtype, int8=int8)
            tower = TextTower(config, positions=positions, attention=backend, kernel=kernel)
        self._tower = placed(tower, config.tower_weights(checkpoint.tensors), device, dtype)

    def fingerprint(self, preprocessing: str) -> str:
        """In the form that `model.fingerprint` describes. preprocessing: names what made ids of a text."""
        return fingerprint(self._identity(preprocessing), dtype=self._dtype_name)

    def old_fingerprints(self, preprocessing: str) -> dict[str, str]:
        """By the fingerprints that earlier versions gave under any dtype, those of today."""
        return old_text_fingerprints(self._identity(preprocessing))

    def _identity(self, preprocessing: str) -> dict[str, object]:
        return text_identity(self._checkpoint_digest, self._config, preprocessing=preprocessing)

    @torch.inference_mode()
    def run(self, texts: PackedTexts) -> RunnerOutput:
        """One forward of the whole pack, without what follows a CLIP model's end token.

        Raises `DeviceOutOfMemory`, `DeviceLost`, and anything that a kernel may raise.
        """
        if self._streams is not None:
            return self.begin(texts).result()
        try:
            return self._run(texts)
        except Exception as error:
            blame_device(error, self._device)
            raise

    @torch.inference_mode()
    def begin(self, texts: PackedTexts) -> Begun:
        """As `Runner.begin`."""
        assert self._streams is not None, "this device does not work by itself"
        batch, order = self._sorted(texts)

        def arrange() -> tuple[TextArrangement, Tensor]:
            places = torch.from_numpy(np.argsort(order)).to(self._device, non_blocking=True)
            return self._tower.arrange(batch), places

        def forward(arranged: tuple[TextArrangement, Tensor]) -> DeviceOutput:
            arrangement, places = arranged
            pooled = self._forward(arrangement).index_select(0, places)
            return DeviceOutput(pooled, None, batch.tokens + self._tower.filler_rows(batch.tokens))

        return self._streams.begin(arrange, forward)

    def _sorted(self, texts: PackedTexts) -> tuple[PackedTexts, NDArray[np.int64]]:
        """What is computed of the texts, the shortest first, and which text each of those is: those of one length side
        by side share a call of attention."""
        lengths = self._config.used(texts)
        order = np.argsort(lengths, kind="stable")
        ids = texts.texts()
        return pack_texts([ids[number][: lengths[number]] for number in order]), order

    def _run(self, texts: PackedTexts) -> RunnerOutput:
        batch, order = self._sorted(texts)
        shares = cut(batch, threads_of(self._device), width=self._config.width)
        outputs = self._pool.each(self._forward, [self._tower.arrange(share.batch) for share in shares])
        computed = [share.batch.tokens + self._tower.filler_rows(share.batch.tokens) for share in shares]
        output = join(
            [RunnerOutput(to_host(pooled), None, rows) for pooled, rows in zip(outputs, computed, strict=True)],
            shares,
            batch,
        )
        pooled = np.empty_like(output.pooled)
        pooled[order] = output.pooled
        return RunnerOutput(pooled, None, output.computed_tokens)

    @torch.inference_mode()
    def _forward(self, arrangement: TextArrangement) -> Tensor:
        pooled: Tensor = self._tower(arrangement)
        return pooled

    def warm_up(self, tokens: int) -> None:
        """Runs as many of the longest texts as `tokens` hold, and at least one, so that no caller pays the device's
        one-time costs."""
        count = max(1, tokens // self.context)
        self.run(pack_texts([self._config.longest()] * count))
