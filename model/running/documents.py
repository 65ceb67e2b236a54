"""The texts of a model that embeds documents: a text is a document without pictures.

Knows nothing of texts or requests.
"""

from collections.abc import Callable, Mapping

import numpy as np

from model.checkpoint.load import DocumentCheckpoint
from model.pack import PackedDocuments, PackedTexts, pack_documents, pack_texts
from model.running.fingerprint import named_by
from model.running.output import RunnerOutput


class DocumentTexts:
    """As `TextRunner`, by the forward of documents. It has no weights of its own."""

    parameters = 0

    def __init__(
        self,
        checkpoint: DocumentCheckpoint,
        run: Callable[[PackedDocuments], RunnerOutput],
        *,
        width: int,
        identity: Mapping[str, object],
    ) -> None:
        """identity: of the model's vectors."""
        self.context, self.vocabulary, self.width = checkpoint.context, checkpoint.vocabulary, width
        self._run, self._identity = run, identity

    def fingerprint(self, preprocessing: str) -> str:
        """16 hexadecimal digits. preprocessing: names what made ids of a text."""
        return named_by({**self._identity, "text": preprocessing})

    def run(self, texts: PackedTexts) -> RunnerOutput:
        """One forward of the whole pack. Raises as `Runner.run`."""
        ids = texts.texts()
        return self._run(pack_documents(ids, [], [()] * len(ids)))

    def warm_up(self, tokens: int) -> None:
        """Runs as many of the longest texts as `tokens` hold, and at least one, so that no caller pays the device's
        one-time costs."""
        count = max(1, tokens // self.context)
        self.run(pack_texts([np.zeros(min(self.context, max(1, tokens)), np.int32)] * count))
