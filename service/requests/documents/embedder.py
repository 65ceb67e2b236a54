"""The last stages of documents: from headers and plans of their images to one vector each.

Only for models that make one vector of several texts and images.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.errors import BudgetError, TextError
from model.images.decode import DecodeMode, ImageHeader
from model.sizing.plan import ImagePlan, plan_image
from model.sizing.split import split_request_tokens
from service.engine.client import DocumentJob, JobClient
from service.errors import Invalid, ServiceError, from_model_error
from service.limits import Limits, TextFacts
from service.metrics import Metrics
from service.requests.admission.hold import Hold
from service.requests.decoder import Decoder
from service.requests.documents.rows import Document, DocumentRow, images_of_document, row_of, texts_of
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedDocument, EmbeddedImage, Outcome
from service.requests.steps import each, in_time, raised
from service.requests.text_reader import TextReader


class DocumentEmbedder:
    """Serves many requests at once."""

    def __init__(
        self, client: JobClient, decoder: Decoder, text_reader: TextReader, limits: Limits, metrics: Metrics
    ) -> None:
        self._client, self._decoder, self._text_reader, self._metrics = client, decoder, text_reader, metrics
        self._limits = limits

    async def outcomes(
        self,
        hold: Hold,
        headers: Sequence[ImageHeader | ServiceError],
        plans: Sequence[ImagePlan | ServiceError],
        parameters: EmbedParameters,
        deadline_s: float,
        approve: Callable[[int], None],
        on_failure: Callable[[ServiceError], ServiceError],
    ) -> list[Outcome]:
        """One for each document of `hold`. headers, plans: of its images. approve: as in `Embedder.embed`. on_failure:
        as in `each`."""
        reads = [
            partial(self._row, document, plans, parameters, deadline_s, bulk=hold.bulk) for document in hold.documents
        ]
        began_s = time.monotonic()
        rows = await each(reads, on_failure)
        tokenize_s = time.monotonic() - began_s
        self._count(hold.documents, rows, tokenize_s)
        approve(sum(row.image_tokens for row in rows if isinstance(row, DocumentRow)))
        tokens = sum(row.tokens for row in rows if isinstance(row, DocumentRow))
        hold.take_tokens(tokens, within_s=deadline_s - time.monotonic())
        steps = [
            partial(self._document, hold, document, row, headers, parameters, deadline_s, tokenize_s)
            for document, row in zip(hold.documents, rows, strict=True)
        ]
        return await each(steps, on_failure)

    def _count(
        self, documents: Sequence[Document], rows: Sequence[DocumentRow | ServiceError], tokenize_s: float
    ) -> None:
        """What metrics say of documents before any image of them is decoded."""
        if any(isinstance(part, str) for document in documents for part in document):
            self._metrics.stages["tokenize"].observe(tokenize_s)
        for row in rows:
            if isinstance(row, DocumentRow):
                self._metrics.truncated_texts.inc(row.truncated)
                for plan in row.plans:
                    self._metrics.image_tokens.observe(plan.tokens)

    async def _row(
        self,
        document: Document,
        plans: Sequence[ImagePlan | ServiceError],
        parameters: EmbedParameters,
        deadline_s: float,
        *,
        bulk: bool,
    ) -> DocumentRow:
        own = _plans(document, plans)
        facts = self._facts
        assert facts.documents is not None
        texts = texts_of(document, prompt=facts.prompt(parameters.task))
        reader, truncate = self._text_reader, parameters.truncate == "end"

        async def parts() -> tuple[list[list[int]], bool] | TextError:
            async with reader.turn(bulk=bulk):
                return await reader.read_parts(texts, beside=2 * len(own), truncate=truncate)

        read = await in_time(parts(), deadline_s)
        if isinstance(read, TextError):
            refusal = from_model_error(read)
            refusal.param = "inputs"
            raise refusal
        ids, truncated = read
        has_text = any(isinstance(part, str) for part in document)
        row = row_of(ids, own, facts.documents, has_text=has_text, truncated=truncated)
        if row.tokens > self._limits.max_item_tokens:
            lowered = self._lowered(own, row)
            row = row_of(ids, lowered, facts.documents, has_text=has_text, truncated=truncated)
        return row

    def _lowered(self, plans: Sequence[ImagePlan], row: DocumentRow) -> list[ImagePlan]:
        """Plans under caps that are lowered together until the document fits a pack. Raises `Invalid`."""
        most, geometry = self._limits.max_item_tokens, self._client.model.geometry
        try:
            if not plans:
                raise BudgetError("no image can be lowered", param="max_tokens")
            budgets = split_request_tokens(
                [plan.size for plan in plans],
                [plan.budget for plan in plans],
                geometry=geometry,
                strategy=plans[0].strategy,
                max_request_tokens=most - row.text_tokens,
            )
        except BudgetError:
            raise Invalid(
                f"one vector is made of at most {most} tokens (max_image_tokens), and the input has "
                f"{len(plans)} images and {row.text_tokens} tokens of text: they take more at any cap",
                param="max_tokens",
            ) from None
        return [
            plan_image(plan.size, geometry=geometry, budget=budget, strategy=plan.strategy)
            for plan, budget in zip(plans, budgets, strict=True)
        ]

    async def _document(
        self,
        hold: Hold,
        document: Document,
        row: DocumentRow | ServiceError,
        headers: Sequence[ImageHeader | ServiceError],
        parameters: EmbedParameters,
        deadline_s: float,
        tokenize_s: float,
    ) -> Outcome:
        """tokenize_s: how long the rows of all documents took."""
        if isinstance(row, ServiceError):
            return row
        began_s = time.monotonic()
        numbers = images_of_document(document)
        reads = [
            partial(self._patches, hold, number, plan, parameters.decode, deadline_s)
            for number, plan in zip(numbers, row.plans, strict=True)
        ]
        decoded = await each(reads, raised)
        decode_s = time.monotonic() - began_s
        for number in numbers:
            hold.drop_image(number)
        if numbers:
            self._metrics.stages["decode"].observe(decode_s)
        job = self._job(row, [plan for plan, _ in decoded], [rows for _, rows in decoded], deadline_s, bulk=hold.bulk)
        result = await self._client.submit(job)
        self._metrics.observe_queue(result.queue_s, bulk=hold.bulk)
        images = []
        for number, (plan, _) in zip(numbers, decoded, strict=True):
            header = headers[number]
            assert isinstance(header, ImageHeader)
            self._metrics.images_repaired.inc(header.repaired)
            images.append(EmbeddedImage(plan, result, decode_s, header.repaired, format=header.format))
        times = (tokenize_s, decode_s)
        embedded = EmbeddedDocument(tuple(images), row.text_tokens, row.truncated, result, *times)
        form = parameters.vector_format
        if form.may_lose_vectors:
            form.check(embedded.embedding(normalize=parameters.normalize)[None])
        return embedded

    async def _patches(
        self, hold: Hold, number: int, plan: ImagePlan, decode: DecodeMode, deadline_s: float
    ) -> tuple[ImagePlan, NDArray[np.uint8]]:
        async def patches() -> tuple[ImagePlan, NDArray[np.uint8]]:
            async with self._decoder.turn(bulk=hold.bulk):
                return await self._decoder.patches(hold.images[number], plan, decode)

        return await in_time(patches(), deadline_s)

    def image_job(self, rows: NDArray[np.uint8], plan: ImagePlan, deadline_s: float, *, bulk: bool) -> DocumentJob:
        """A document of one image and no text."""
        assert self._facts.documents is not None
        row = row_of([(), ()], [plan], self._facts.documents, has_text=False, truncated=False)
        return self._job(row, [plan], [rows], deadline_s, bulk=bulk)

    def _job(
        self,
        row: DocumentRow,
        plans: Sequence[ImagePlan],
        rows: Sequence[NDArray[np.uint8]],
        deadline_s: float,
        *,
        bulk: bool,
    ) -> DocumentJob:
        return DocumentJob(
            ids=row.ids,
            rows=np.concatenate(rows) if rows else _NO_ROWS,
            grids=tuple(segment.grid for plan in plans for segment in plan.segments),
            text_tokens=row.text_tokens,
            token_caps=tuple(plan.token_cap for plan in plans),
            text_cap=self._facts.context,
            deadline_s=deadline_s,
            bulk=bulk,
        )

    @property
    def _facts(self) -> TextFacts:
        facts = self._client.model.text
        assert facts is not None
        return facts


_NO_ROWS = np.empty((0, 0), np.uint8)


def text_job(ids: NDArray[np.int32], facts: TextFacts, deadline_s: float, *, bulk: bool) -> DocumentJob:
    """A document of one text."""
    return DocumentJob(ids, _NO_ROWS, (), len(ids), (), facts.context, deadline_s, bulk=bulk)


def _plans(document: Document, plans: Sequence[ImagePlan | ServiceError]) -> list[ImagePlan]:
    """Those of a document's images. Raises the error of one that has none."""
    own = []
    for number in images_of_document(document):
        plan = plans[number]
        if isinstance(plan, ServiceError):
            raise plan
        own.append(plan)
    return own
