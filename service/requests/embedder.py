"""The stages of a request's images and texts: header or ids, budget, admission, decode, queue, result.

Every embedding route calls it. Knows no HTTP: bytes and strings go in, and one outcome for each comes out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from model.errors import TextError
from model.images.decode import DecodeMode, ImageHeader
from model.sizing.plan import ImagePlan
from model.texts.tokens import TextTokens
from service.engine.client import ImageJob, Job, JobClient, JobResult, TextJob
from service.engine.forward import have_directions
from service.errors import EngineFault, Invalid, ServiceError, from_model_error
from service.limits import Limits
from service.metrics import Metrics
from service.requests.admission import Hold
from service.requests.cache.flights import Lead
from service.requests.cache.pictures import SeenPictures
from service.requests.cache.recall import Recall
from service.requests.decoder import Decoder
from service.requests.documents.embedder import DocumentEmbedder, text_job
from service.requests.documents.rows import images_of_document, owners
from service.requests.image_planner import ImagePlanner
from service.requests.parameters import EmbedParameters
from service.requests.request import ImageBounds
from service.requests.results import EmbeddedImage, EmbeddedItem, EmbeddedText, Outcome
from service.requests.steps import each, in_time
from service.requests.text_reader import TextReader
from service.requests.url_images import UrlImages


class Embedder:
    """Takes a request's images and texts through the stages. Serves many requests at once."""

    def __init__(
        self,
        *,
        client: JobClient,
        decoder: Decoder,
        limits: Limits,
        metrics: Metrics,
        text_reader: TextReader | None = None,
        url_images: UrlImages | None = None,
        pictures: SeenPictures | None = None,
    ) -> None:
        """text_reader: None if the model takes no text; url_images: None if no image comes from a URL. Requests must
        then hold none. pictures: None to remember none."""
        self._client, self._decoder, self._metrics = client, decoder, metrics
        self._planner = ImagePlanner(client.model.geometry, limits)
        self._text_reader, self._url_images, self._pictures = text_reader, url_images, pictures
        facts = client.model.text
        self._documents = (
            DocumentEmbedder(client, decoder, text_reader, limits, metrics)
            if text_reader is not None and facts is not None and facts.documents is not None
            else None
        )

    async def embed(
        self,
        hold: Hold,
        parameters: EmbedParameters,
        *,
        deadline_s: float,
        bounds: Sequence[ImageBounds | None] = (),
        approve: Callable[[int], None] = lambda tokens: None,
    ) -> list[Outcome]:
        """One outcome for each image of `hold` and then for each text, in order, or if it has documents, for each of
        those. Tokens are charged to it; an image leaves it once decoded.

        bounds: of each image, None for those of `parameters`; empty if all are None. approve: gets the sum of the
        images' tokens before anything is decoded, and may raise. Without `partial` the first error is raised with its
        index, and the work on the other items stops.
        """
        if hold.lookup is not None and (hold.texts or hold.urls or not _remembers(hold, parameters)):
            # It was let in for what may be known. Fetching images or splitting texts is for those that have a place.
            hold.check_queue()
        counters = self._counters(hold)
        try:
            with self._recall(hold, parameters, bounds) as recall:
                outcomes = await self._outcomes(hold, parameters, bounds, deadline_s, approve, recall)
        except ServiceError as error:
            # An error of one item leaves the others unfinished. One of the request is that of every item.
            for index, counter in enumerate(counters):
                counter.labels(error.code if error.index in (None, index) else "abandoned").inc()
            raise
        except asyncio.CancelledError:
            for counter in counters:
                counter.labels("abandoned").inc()
            raise
        for counter, outcome in zip(counters, outcomes, strict=True):
            counter.labels(outcome.code if isinstance(outcome, ServiceError) else "embedded").inc()
        return outcomes

    def _counters(self, hold: Hold) -> list[Counter]:
        """Where each item is counted. A document with an image is counted as one."""
        images, texts = self._metrics.images, self._metrics.texts
        if hold.documents:
            return [images if images_of_document(document) else texts for document in hold.documents]
        return [images] * len(hold.images) + [texts] * len(hold.texts)

    def _recall(self, hold: Hold, parameters: EmbedParameters, bounds: Sequence[ImageBounds | None]) -> Recall:
        return Recall(
            self._pictures if _remembers(hold, parameters) else None,
            hold,
            parameters.decode,
            lambda index: self._planner.bounds_of(parameters, bounds[index] if bounds else None),
        )

    async def _outcomes(
        self,
        hold: Hold,
        parameters: EmbedParameters,
        bounds: Sequence[ImageBounds | None],
        deadline_s: float,
        approve: Callable[[int], None],
        recall: Recall,
    ) -> list[Outcome]:
        on_failure = partial(_fail, partial=parameters.partial, owners=owners(hold.documents))
        fetches_s: list[float] = []
        indices = range(len(hold.images))
        seen = await each(
            [partial(self._header, hold, index, deadline_s, fetches_s, recall) for index in indices], on_failure
        )
        headers = {at: header for at, header in enumerate(seen) if isinstance(header, ImageHeader | ServiceError)}
        bounds = bounds or [None] * len(seen)
        plans = self._plans(headers, parameters, bounds, on_failure)
        for index, plan in plans.items():
            if isinstance(plan, ServiceError):
                recall.give_up(index)
        if self._documents is not None and hold.documents:
            on_failure = partial(_fail, partial=parameters.partial)
            return await self._documents.outcomes(
                hold, [*headers.values()], [*plans.values()], parameters, deadline_s, approve, on_failure
            )
        began_s = time.monotonic()
        texts = await self._read_texts(hold, parameters, deadline_s, on_failure)
        tokenize_s = time.monotonic() - began_s
        if texts:
            self._metrics.stages["tokenize"].observe(tokenize_s)
        image_tokens = sum(plan.tokens for plan in plans.values() if isinstance(plan, ImagePlan))
        approve(image_tokens)
        text_tokens = sum(len(text.ids) for text in texts if isinstance(text, TextTokens))
        try:
            hold.take_tokens(image_tokens + text_tokens, within_s=deadline_s - time.monotonic())
        except Invalid as error:
            error.param = error.param if image_tokens else "texts"
            raise
        steps = self._image_steps(hold, seen, plans, parameters, bounds, deadline_s, recall)
        steps += [partial(self._text, hold, text, parameters, tokenize_s, deadline_s) for text in texts]
        outcomes = await each(steps, on_failure)
        if fetches_s:
            fetch_s = max(fetches_s)
            return [replace(item, fetch_s=fetch_s) if isinstance(item, EmbeddedImage) else item for item in outcomes]
        return outcomes

    async def _header(
        self, hold: Hold, index: int, deadline_s: float, fetches_s: list[float], recall: Recall
    ) -> ImageHeader | EmbeddedImage | Lead:
        """The header of an image, which is fetched first if it comes from a URL; or what `recall` has of it. fetches_s:
        takes how long fetching was."""
        if index in hold.urls:
            assert self._url_images is not None, "a URL was let in without a fetcher"
            began_s = time.monotonic()
            await in_time(self._url_images.fetch(hold, index), deadline_s)
            fetches_s.append(time.monotonic() - began_s)
            self._metrics.stages["fetch"].observe(fetches_s[-1])
        if (known := await recall.look(index)) is not None:
            return known
        with recall.embedding(index):
            return await in_time(self._decoder.header(hold.images[index]), deadline_s)

    def _plans(
        self,
        headers: Mapping[int, ImageHeader | ServiceError],
        parameters: EmbedParameters,
        bounds: Sequence[ImageBounds | None],
        on_failure: Callable[[ServiceError], ServiceError],
    ) -> dict[int, ImagePlan | ServiceError]:
        """By index, as headers are. Raises `Invalid` for a budget that no image could meet."""
        sizes = {index: header.size for index, header in headers.items() if isinstance(header, ImageHeader)}
        planned = self._planner.plan(sizes, parameters, bounds)
        plans: dict[int, ImagePlan | ServiceError] = {}
        for index, header in headers.items():
            if isinstance(header, ServiceError):
                plans[index] = header
                continue
            plan = planned[index]
            if isinstance(plan, ImagePlan):
                self._metrics.image_tokens.observe(plan.tokens)
            plans[index] = plan if isinstance(plan, ImagePlan) else on_failure(plan)
        return plans

    def _plan(
        self, index: int, parameters: EmbedParameters, bounds: Sequence[ImageBounds | None], header: ImageHeader
    ) -> ImagePlan:
        """Of one image that turned out to be this request's to embed. Raises `ServiceError`."""
        plan = self._plans({index: header}, parameters, bounds, _raised)[index]
        assert isinstance(plan, ImagePlan)
        return plan

    def _image_steps(
        self,
        hold: Hold,
        seen: Sequence[ImageHeader | ServiceError | EmbeddedImage | Lead],
        plans: Mapping[int, ImagePlan | ServiceError],
        parameters: EmbedParameters,
        bounds: Sequence[ImageBounds | None],
        deadline_s: float,
        recall: Recall,
    ) -> list[Callable[[], Awaitable[Outcome]]]:
        """What makes the outcome of each image. plans: of those with a header; the others have been seen before."""
        steps: list[Callable[[], Awaitable[Outcome]]] = []
        for index, known in enumerate(seen):
            if isinstance(known, ImageHeader | ServiceError):
                steps.append(partial(self._image, hold, index, known, plans[index], parameters, deadline_s, recall))
            else:
                plan_of = partial(self._plan, index, parameters, bounds)
                steps.append(partial(self._known, hold, index, known, parameters, plan_of, deadline_s, recall))
        return steps

    async def _known(
        self,
        hold: Hold,
        index: int,
        known: EmbeddedImage | Lead,
        parameters: EmbedParameters,
        plan_of: Callable[[ImageHeader], ImagePlan],
        deadline_s: float,
        recall: Recall,
    ) -> Outcome:
        """An image that was embedded before, or that another request embeds. It takes no tokens, unless the other
        comes to nothing."""
        image = await recall.wait(index, known, deadline_s) if isinstance(known, Lead) else known
        if image is None:
            with recall.embedding(index):
                header = await in_time(self._decoder.header(hold.images[index]), deadline_s)
                plan = plan_of(header)
                hold.take_tokens(plan.tokens, within_s=deadline_s - time.monotonic())
            return await self._image(hold, index, header, plan, parameters, deadline_s, recall)
        self._metrics.image_tokens.observe(image.plan.tokens)
        self._metrics.images_repaired.inc(image.repaired)
        _check_image(image, parameters)
        return image

    def _padding_cap(self, plan: ImagePlan) -> int:
        """What metrics compare packing with. A fixed model's squares are all alike, so they would need no padding."""
        return self._client.model.geometry.fixed_tokens(plan.strategy) or plan.token_cap

    async def _read_texts(
        self,
        hold: Hold,
        parameters: EmbedParameters,
        deadline_s: float,
        on_failure: Callable[[ServiceError], ServiceError],
    ) -> list[TextTokens | ServiceError]:
        if not hold.texts:
            return []
        assert self._text_reader is not None, "a text was let in that the model does not take"
        facts = self._client.model.text
        prompt = facts.documents.prompt(parameters.task) if facts and facts.documents else ""
        reader, truncate = self._text_reader, parameters.truncate == "end"

        async def ids() -> list[TextTokens | TextError]:
            async with reader.turn(bulk=hold.bulk):
                return await reader.read(hold.texts, truncate=truncate, prompt=prompt)

        read: list[TextTokens | ServiceError] = []
        for index, text in enumerate(await in_time(ids(), deadline_s), start=len(hold.images)):
            if isinstance(text, TextError):
                read.append(on_failure(from_model_error(text, index=index)))
                continue
            self._metrics.truncated_texts.inc(text.truncated)
            read.append(text)
        return read

    async def _image(
        self,
        hold: Hold,
        index: int,
        header: ImageHeader | ServiceError,
        plan: ImagePlan | ServiceError,
        parameters: EmbedParameters,
        deadline_s: float,
        recall: Recall,
    ) -> Outcome:
        if isinstance(header, ServiceError):
            return header
        if isinstance(plan, ServiceError):
            return plan
        began_s = time.monotonic()
        with recall.embedding(index):
            upright, rows = await in_time(self._patches(hold, index, plan, parameters.decode), deadline_s)
            decode_s = time.monotonic() - began_s
            hold.drop_image(index)
            self._metrics.stages["decode"].observe(decode_s)
            result = await self._submit_image(hold, rows, upright, parameters, deadline_s)
        self._metrics.observe_queue(result.queue_s, bulk=hold.bulk)
        self._metrics.images_repaired.inc(header.repaired)
        image = EmbeddedImage(upright, result, decode_s, header.repaired, format=header.format)
        recall.embedded(index, image)
        _check_image(image, parameters)
        return image

    async def _patches(
        self, hold: Hold, index: int, plan: ImagePlan, decode: DecodeMode
    ) -> tuple[ImagePlan, NDArray[np.uint8]]:
        async with self._decoder.turn(bulk=hold.bulk):
            return await self._decoder.patches(hold.images[index], plan, decode)

    async def _submit_image(
        self, hold: Hold, rows: NDArray[np.uint8], plan: ImagePlan, parameters: EmbedParameters, deadline_s: float
    ) -> JobResult:
        """As a document of its own, if the model makes one vector of several images and texts; so packs have them all
        in one forward. Token vectors are of images alone."""
        if self._documents is not None and not parameters.wants_tokens:
            return await self._client.submit(self._documents.image_job(rows, plan, deadline_s, bulk=hold.bulk))
        grids = tuple(segment.grid for segment in plan.segments)
        cap, wanted = self._padding_cap(plan), parameters.wants_tokens
        return await self._client.submit(ImageJob(rows, grids, cap, deadline_s, wanted, bulk=hold.bulk))

    async def _text(
        self,
        hold: Hold,
        text: TextTokens | ServiceError,
        parameters: EmbedParameters,
        tokenize_s: float,
        deadline_s: float,
    ) -> Outcome:
        if isinstance(text, ServiceError):
            return text
        facts = self._client.model.text
        assert facts is not None, "a model without text was given ids"
        job: Job = TextJob(text.ids, facts.context, deadline_s, bulk=hold.bulk)
        if self._documents is not None:
            job = text_job(text.ids, facts, deadline_s, bulk=hold.bulk)
        result = await self._client.submit(job)
        self._metrics.observe_queue(result.queue_s, bulk=hold.bulk)
        embedded = EmbeddedText(len(text.ids), text.truncated, result, tokenize_s)
        _check_embedding(embedded, parameters)
        return embedded


def _remembers(hold: Hold, parameters: EmbedParameters) -> bool:
    """Nothing is remembered of token vectors, which are large, of documents, or of images that one budget bounds
    together."""
    return parameters.max_request_tokens is None and not hold.documents and not parameters.wants_tokens


def _check_image(image: EmbeddedImage, parameters: EmbedParameters) -> None:
    """Raises `Invalid` if its vector would be written as zeros, and `EngineFault` if it has none."""
    if parameters.output == "segments":
        parameters.vector_format.check(image.segment_embeddings(normalize=parameters.normalize))
    elif parameters.wants_embedding:
        if len(image.plan.segments) > 1 and not have_directions(image.embedding(normalize=False)[None]):
            raise EngineFault("the vectors of this image's segments cancel one another out: it has no vector")
        _check_embedding(image, parameters)


def _raised(error: ServiceError) -> ServiceError:
    raise error


def _check_embedding(item: EmbeddedItem, parameters: EmbedParameters) -> None:
    """Raises `Invalid` if it would be written as zeros."""
    form = parameters.vector_format
    if form.may_lose_vectors:
        form.check(item.embedding(normalize=parameters.normalize)[None])


def _fail(error: ServiceError, *, partial: bool, owners: Mapping[int, int] = MappingProxyType({})) -> ServiceError:
    """owners: the documents of images, by index, whose errors are theirs."""
    if error.index is not None:
        error.index = owners.get(error.index, error.index)
    if not partial:
        raise error
    return error
