"""From documents to vectors: pictures through the vision tower, then texts and soft tokens through the text encoder.

A document is a row of ids, in which the soft tokens of its pictures have places. A picture alone is a document of one.
Knows nothing of images, devices or checkpoint files.

Axes: T patches of all pictures, N soft tokens, S documents, R rows of the text encoder's sequence, E width of an
embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.encoders.gemma.config import GemmaConfig
from model.encoders.gemma.text import GemmaText, TextArrangement
from model.encoders.gemma.vision import GemmaPositions, GemmaVision, VisionArrangement
from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import DocumentEncoder, EncoderOutput, Setup
from model.errors import CheckpointError
from model.kernels.attention import for_width
from model.pack import SOFT_TOKEN, PackedBatch, PackedDocuments


@dataclass(frozen=True, slots=True, eq=False)
class GemmaArrangement(Arrangement):
    """positions: none, both towers have their own. pictures: None if no document has one.

    ids, id_rows, soft_rows: int32 and int64 on the device: ids of the text, and the rows of the sequence for them and
    for the soft tokens, in order. filler_rows: of both towers, which belong to no document.
    """

    pictures: VisionArrangement | None
    text: TextArrangement
    ids: Tensor
    id_rows: Tensor
    soft_rows: Tensor
    filler_rows: int


class GemmaEncoder(DocumentEncoder):
    """Both towers."""

    def __init__(self, config: GemmaConfig, setup: Setup) -> None:
        """Raises `CheckpointError` for `features_after`."""
        super().__init__()
        if setup.features_after is not None:
            raise CheckpointError("feature_layer is set; the token vectors of this family come out of its text encoder")
        assert isinstance(setup.positions, GemmaPositions)
        self._positions: GemmaPositions = setup.positions
        self._config, self._row_multiple = config, setup.kernel.row_multiple
        self.vision = GemmaVision(
            config.shape, config.depth, patch_width=config.patch_width, pooled=config.pooled,
            text_width=config.text_width, standardised=config.standardised,
            attention=setup.attention, kernel=setup.kernel,
        )  # fmt: skip
        self.text = GemmaText(
            config.text_layers, vocabulary=config.vocabulary, out_width=config.out_width,
            attentions=[for_width(setup.attention, layer.shape.head_width) for layer in config.text_layers],
            kernel=setup.kernel, device=setup.positions.device,
        )  # fmt: skip

    def arrange(self, batch: PackedBatch) -> GemmaArrangement:
        """Each segment is a picture alone."""
        return self.arrange_documents(self._config.frame.around(batch, pooled=self._config.pooled))

    def arrange_documents(self, documents: PackedDocuments) -> GemmaArrangement:
        device, pictures = self._positions.device, documents.pictures
        is_soft = documents.ids == SOFT_TOKEN
        text = self.text.arrange(documents.cu_seqlens)
        patches = pictures.tokens if pictures else 0
        return GemmaArrangement(
            segments=next(iter(text.segments.values())),
            positions=torch.empty(0, device=device),
            pictures=self.vision.arrange(pictures, self._positions) if pictures else None,
            text=text,
            ids=torch.from_numpy(documents.ids[~is_soft]).to(device),
            id_rows=torch.from_numpy(np.flatnonzero(~is_soft)).to(device),
            soft_rows=torch.from_numpy(np.flatnonzero(is_soft)).to(device),
            filler_rows=-patches % self._row_multiple + -len(documents.ids) % self._row_multiple,
        )

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        """patches: `[T, 3*P*P]`, no rows without pictures. The tokens are those of the pictures: `[N, E]`."""
        assert isinstance(arrangement, GemmaArrangement)
        ids = self.text.embedded(arrangement.ids)
        rows = ids.new_empty(len(arrangement.id_rows) + len(arrangement.soft_rows), ids.shape[1])
        rows[arrangement.id_rows] = ids
        if arrangement.pictures is not None:
            rows[arrangement.soft_rows] = self.vision(patches, arrangement.pictures).float()
        pooled, rows = self.text(rows, arrangement.text)
        tokens = self.text.projected(rows.index_select(0, arrangement.soft_rows))
        return EncoderOutput(tokens=tokens, pooled=pooled, filler_rows=arrangement.filler_rows)
