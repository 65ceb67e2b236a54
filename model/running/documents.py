"""The texts of a model that embeds documents: a text is a document without pictures.

Knows nothing of texts or requests.
"""

from collections.abc import Callable, Mapping

import numpy as np

from model.checkpoint.load import DocumentCheckpoint
from model.pack import PackedDocuments, PackedTexts, pack_documents, pack_texts
from model.running.fingerprint import fingerprint, old_text_fingerprints
from model.running.output import RunnerOutput
from model.running.streams import Begun


class DocumentTexts:
    """As `TextRunner`, by the forward of documents. It has no weights of its own."""

    parameters = 0

    def __init__(
        self,
        checkpoint: DocumentCheckpoint,
        run: Callable[[PackedDocuments], RunnerOutput],
        begin: Callable[[PackedDocuments], Begun],
        *,
        width: int,
        identity: Mapping[str, object],
        dtype: str,
    ) -> None:
        """run, begin: as of `Runner`, of documents. identity, dtype: of the model's vectors."""
        self.context, self.vocabulary, self.width = checkpoint.context, checkpoint.vocabulary, width
        self._run, self._begin, self._identity, self._dtype = run, begin, identity, dtype

    def fingerprint(self, preprocessing: str) -> str:
        """In the form that `model.fingerprint` describes. preprocessing: names what made ids of a text."""
        return fingerprint({**self._identity, "text": preprocessing}, dtype=self._dtype)

    def old_fingerprints(self, preprocessing: str) -> dict[str, str]:
        """By the fingerprints that earlier versions gave under any dtype, those of today."""
        return old_text_fingerprints({**self._identity, "text": preprocessing})

    def run(self, texts: PackedTexts) -> RunnerOutput:
        """One forward of the whole pack. Raises as `Runner.run`."""
        return self._run(_documents_of(texts))

    def begin(self, texts: PackedTexts) -> Begun:
        """As `Runner.begin`."""
        return self._begin(_documents_of(texts))

    def warm_up(self, tokens: int) -> None:
        """Runs as many of the longest texts as `tokens` hold, and at least one, so that no caller pays the device's
        one-time costs."""
        count = max(1, tokens // self.context)
        self.run(pack_texts([np.zeros(min(self.context, max(1, tokens)), np.int32)] * count))


def _documents_of(texts: PackedTexts) -> PackedDocuments:
    ids = texts.texts()
    return pack_documents(ids, [], [()] * len(ids))
