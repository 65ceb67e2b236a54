"""A checkpoint on a device: packs in, float32 arrays out.

The only module that moves data between host and device. Knows nothing of images or requests. One caller at a time.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.checkpoint.load import Checkpoint
from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import DocumentEncoder, Encoder, EncoderOutput
from model.errors import CheckpointError
from model.kernels.attention import AttentionName, choose_attention
from model.kernels.linear import choose_linear
from model.pack import PackedBatch, PackedDocuments, PackedTexts, pack
from model.running.devices import DtypeName, choose_dtype, find_device
from model.running.documents import DocumentTexts
from model.running.faults import blame_device
from model.running.fingerprint import fingerprint, identity, old_fingerprints
from model.running.output import RunnerOutput
from model.running.place import placed, threads_of, to_host
from model.running.shares import cut, join
from model.running.staging import Staging
from model.running.streams import Begun, DeviceOutput, Streams
from model.running.texts import TextRunner, Texts
from model.running.workers import Pool


class Runner:
    """The towers of one checkpoint with their weights on one device. texts: runs texts; None without a text tower."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        dtype: DtypeName = "auto",
        attention: AttentionName = "auto",
        feature_layer: int | None = None,
    ) -> None:
        """Raises `BackendUnavailable` for a device, dtype or attention backend that this machine lacks.

        feature_layer: which of Transformers' `hidden_states` the token vectors are, without the final norm (LLaVA takes
        -2); None for its `last_hidden_state`. Raises `CheckpointError` for a layer that the model lacks.
        """
        config, preprocessing = checkpoint.config, checkpoint.preprocessing
        features_after = None if feature_layer is None else _blocks_before(feature_layer, checkpoint)
        self.device = find_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._int8 = dtype == "int8"
        self.encoder, self.attention = self._build(checkpoint, attention, features_after)
        self.width = config.embedding_width
        self.token_width = config.token_width
        self.patch_size = config.patch_size
        self.parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
        self._encoder_width = config.width
        self._geometry = preprocessing.geometry
        self._identity = identity(checkpoint, features_after=features_after)
        self._mean, self._std = (
            torch.tensor(values, device=self.device).mul(255).repeat(config.patch_size**2)  # [3*P*P]
            for values in (preprocessing.mean, preprocessing.std)
        )
        self._pool = Pool()
        self._warm_bytes = 0
        self._streams = Streams(self.device) if self.device.type == "cuda" else None
        self.texts = self._text_runner(checkpoint, attention)
        if self.texts:
            self.parameters += self.texts.parameters

    def _text_runner(self, checkpoint: Checkpoint, attention: AttentionName) -> Texts | None:
        if checkpoint.documents:
            return DocumentTexts(
                checkpoint.documents,
                self.run_documents,
                self.begin_documents,
                width=self.width,
                identity=self._identity,
                dtype=self.dtype_name,
            )
        if checkpoint.text:
            return TextRunner(
                checkpoint.text,
                device=self.device,
                dtype=self.dtype,
                int8=self._int8,
                attention=attention,
                pool=self._pool,
                streams=self._streams,
            )
        return None

    def _build(
        self, checkpoint: Checkpoint, attention: AttentionName, features_after: int | None
    ) -> tuple[Encoder, str]:
        """The encoder with its weights on the device, and the name of its attention backend."""
        config = checkpoint.config
        name, backend = choose_attention(attention, self.device, self.dtype, config.head_width)
        positions = config.positions(checkpoint.tensors, self.device)
        with torch.device("meta"):
            encoder = config.encoder(
                positions=positions,
                attention=backend,
                kernel=choose_linear(self.device, self.dtype, int8=self._int8),
                features_after=features_after,
            )
        return placed(encoder, config.encoder_weights(checkpoint.tensors), self.device, self.dtype), name

    @property
    def dtype_name(self) -> str:
        """`int8` if blocks multiply 8-bit integers, though all else has another dtype."""
        return "int8" if self._int8 else str(self.dtype).removeprefix("torch.")

    def fingerprint(self, *, decode: str = "exact") -> str:
        """Tells which vectors belong in one index: see `model.fingerprint`."""
        return fingerprint(self._identity, dtype=self.dtype_name, decode=decode)

    def old_fingerprints(self) -> dict[str, str]:
        """By the fingerprints that earlier versions gave to these weights under any dtype, those of today."""
        return old_fingerprints(self._identity)

    @torch.inference_mode()
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        """One forward of the whole pack.

        tokens: also return every token's vector, in the order of the rows (of merged tokens, in the order of what they
        become). Raises `DeviceOutOfMemory`, `DeviceLost`, and anything that a kernel may raise.
        """
        if self._streams is not None:
            return self.begin(batch, tokens=tokens).result()
        try:
            return self._run(batch, tokens=tokens)
        except Exception as error:
            blame_device(error, self.device)
            raise

    @torch.inference_mode()
    def begin(self, batch: PackedBatch, *, tokens: bool = False) -> Begun:
        """On a CUDA device: hands the forward of `run` over and does not wait for it. The rows are copied later, unless
        they are ordinary memory."""
        assert self._streams is not None, "this device does not work by itself"

        def forward(arranged: tuple[Tensor | None, Arrangement]) -> DeviceOutput:
            output = self._forward(*arranged)
            wanted = output.tokens if tokens else None
            computed_tokens = batch.tokens + output.filler_rows
            return DeviceOutput(output.pooled, wanted, computed_tokens, self._geometry.merged_tokens)

        return self._streams.begin(lambda: (self._on_device(batch), self.encoder.arrange(batch)), forward)

    @torch.inference_mode()
    def begin_documents(self, documents: PackedDocuments) -> Begun:
        """As `begin`, of `run_documents`."""
        assert self._streams is not None, "this device does not work by itself"
        encoder = self._document_encoder

        def forward(arranged: tuple[Tensor | None, Arrangement]) -> DeviceOutput:
            output = self._forward(*arranged)
            return DeviceOutput(output.pooled, None, documents.tokens + output.filler_rows)

        return self._streams.begin(
            lambda: (self._on_device(documents.pictures), encoder.arrange_documents(documents)), forward
        )

    def begin_texts(self, texts: PackedTexts) -> Begun:
        """As `begin`, of `run_texts`."""
        assert self.texts, "the model has no text tower"
        return self.texts.begin(texts)

    def staging(self) -> Staging:
        """Memory for the rows of a pack that is going to be begun, enough for any that was warmed up with."""
        return Staging(self._warm_bytes)

    @torch.inference_mode()
    def run_documents(self, documents: PackedDocuments) -> RunnerOutput:
        """One forward of a pack of documents: all pictures, and then all rows of ids and soft tokens. Raises as `run`.

        Returns no token vectors.
        """
        if self._streams is not None:
            return self.begin_documents(documents).result()
        encoder = self._document_encoder
        try:
            shares = cut(documents, threads_of(self.device), width=self._encoder_width)
            arranged = [
                (self._on_device(share.batch.pictures), encoder.arrange_documents(share.batch)) for share in shares
            ]
            outputs = self._pool.each(lambda each: self._forward(*each), arranged)
            returned = [
                RunnerOutput(to_host(output.pooled), None, share.batch.tokens + output.filler_rows)
                for output, share in zip(outputs, shares, strict=True)
            ]
            return join(returned, shares, documents)
        except Exception as error:
            blame_device(error, self.device)
            raise

    def _run(self, batch: PackedBatch, *, tokens: bool) -> RunnerOutput:
        shares = cut(batch, threads_of(self.device), width=self._encoder_width)
        # Arranged one after another, since arranging caches positions.
        arranged = [(self._on_device(share.batch), self.encoder.arrange(share.batch)) for share in shares]
        outputs = self._pool.each(lambda each: self._forward(*each), arranged)
        returned = [
            RunnerOutput(
                pooled=to_host(output.pooled),
                tokens=to_host(output.tokens) if tokens else None,
                computed_tokens=share.batch.tokens + output.filler_rows,
                merged_tokens=self._geometry.merged_tokens,
            )
            for output, share in zip(outputs, shares, strict=True)
        ]
        return join(returned, shares, batch)

    def run_texts(self, texts: PackedTexts) -> RunnerOutput:
        """One forward of a pack of texts, with no token vectors. Raises as `run`."""
        assert self.texts, "the model has no text tower"
        return self.texts.run(texts)

    @torch.inference_mode()
    def _forward(self, rows: Tensor | None, arrangement: Arrangement) -> EncoderOutput:
        """rows: uint8, None for documents without pictures."""
        patches = torch.empty(0, len(self._mean), dtype=self.dtype, device=self.device)
        output: EncoderOutput = self.encoder(patches if rows is None else self._normalised(rows), arrangement)
        return output

    def patches(self, batch: PackedBatch) -> Tensor:
        """`[T, 3*P*P]`, normalised, on the device, in the dtype of the weights."""
        return self._normalised(torch.from_numpy(batch.rows).to(self.device))

    def _on_device(self, batch: PackedBatch | None) -> Tensor | None:
        """The rows of a pack that has any, from pinned memory as soon as the device comes to it."""
        return None if batch is None else torch.from_numpy(batch.rows).to(self.device, non_blocking=True)

    def _normalised(self, rows: Tensor) -> Tensor:
        return rows.float().sub_(self._mean).div_(self._std).to(self.dtype)

    @property
    def _document_encoder(self) -> DocumentEncoder:
        assert isinstance(self.encoder, DocumentEncoder), "the model takes no documents"
        return self.encoder

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Runs one pack of gray segments of about these lengths, as `Geometry.strips` has them, so that no caller pays
        the device's one-time costs."""
        grids = self._geometry.strips(lengths)
        batch = pack([np.full((h * w, 3 * self.patch_size**2), 128, dtype=np.uint8) for h, w in grids], grids)
        self._warm_bytes = max(self._warm_bytes, batch.rows.nbytes)
        self.run(batch)


def _blocks_before(feature_layer: int, checkpoint: Checkpoint) -> int:
    """The number of blocks before that layer. -1 counts from the last, as in Transformers' `hidden_states`."""
    depth = checkpoint.config.depth
    if not -depth - 1 <= feature_layer <= depth:
        raise CheckpointError(
            f"feature_layer is {feature_layer}; {checkpoint.name} has {depth} layers: from {-depth - 1} to {depth}"
        )
    return feature_layer % (depth + 1)
