"""The stages of a request's images and texts: header or ids, budget, admission, decode, queue, result.

Every embedding route calls it. Knows no HTTP: bytes and strings go in, and one outcome for each comes out.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from prometheus_client import Counter

from model.images.decode import ImageHeader
from model.sizing.plan import ImagePlan
from model.texts.tokens import TextTokens
from service.engine.client import JobClient
from service.errors import Invalid, ServiceError
from service.limits import Limits
from service.metrics import Metrics
from service.requests.admission.hold import Hold
from service.requests.cache.flights import Lead
from service.requests.cache.pictures import SeenPictures
from service.requests.cache.recall import Recall
from service.requests.decoder import Decoder
from service.requests.documents.embedder import DocumentEmbedder
from service.requests.documents.rows import images_of_document, owners
from service.requests.image_planner import ImagePlanner
from service.requests.parameters import EmbedParameters
from service.requests.request import ImageBounds
from service.requests.results import EmbeddedImage, Outcome
from service.requests.stages.call import EmbedCall
from service.requests.stages.images import ImageStages
from service.requests.stages.texts import TextStages
from service.requests.steps import each
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
        self._metrics, self._pictures = metrics, pictures
        self._planner = ImagePlanner(client.model.geometry, limits)
        facts = client.model.text
        self._documents = (
            DocumentEmbedder(client, decoder, text_reader, limits, metrics)
            if text_reader is not None and facts is not None and facts.documents is not None
            else None
        )
        self._images = ImageStages(client, decoder, self._planner, metrics, url_images, self._documents)
        self._texts = TextStages(client, text_reader, metrics, self._documents)

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
                on_failure = partial(
                    _fail, partial=parameters.partial, fields=hold.image_fields, owners=owners(hold.documents)
                )
                own_bounds = bounds or [None] * len(hold.images)
                call = EmbedCall(hold, parameters, own_bounds, deadline_s, recall, on_failure)
                outcomes = await self._outcomes(call, approve)
        except ServiceError as error:
            # An error of one item leaves the others unfinished. One of the request is that of every item.
            for index, counter in enumerate(counters):
                counter.labels(error.code if error.index in (None, index) else "abandoned").inc()
            raise
        except asyncio.CancelledError:
            for counter in counters:
                counter.labels("abandoned").inc()
            raise
        except Exception:
            for counter in counters:
                counter.labels(ServiceError.code).inc()
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

    async def _outcomes(self, call: EmbedCall, approve: Callable[[int], None]) -> list[Outcome]:
        hold = call.hold
        seen: Sequence[ImageHeader | ServiceError | EmbeddedImage | Lead] = self._images.plain_headers(call)
        if not seen:
            looks = [partial(self._images.look, call, index) for index in range(len(hold.images))]
            seen = await each(looks, call.on_failure)
        headers = {at: header for at, header in enumerate(seen) if isinstance(header, ImageHeader | ServiceError)}
        plans = self._images.plans(call, headers, call.on_failure)
        for index, plan in plans.items():
            if isinstance(plan, ServiceError):
                call.recall.give_up(index)
        if self._documents is not None and hold.documents:
            # One field brings all of them.
            fields = [*hold.image_fields[:1]] * len(hold.documents)
            on_failure = partial(_fail, partial=call.parameters.partial, fields=fields)
            return await self._documents.outcomes(
                hold, [*headers.values()], [*plans.values()], call.parameters, call.deadline_s, approve, on_failure
            )
        planned = [plan for plan in plans.values() if isinstance(plan, ImagePlan)]
        for plan in planned:
            self._metrics.image_tokens.observe(plan.tokens)
        began_s = time.monotonic()
        texts = await self._texts.read(call)
        tokenize_s = time.monotonic() - began_s
        if texts:
            self._metrics.stages["tokenize"].observe(tokenize_s)
        image_tokens = sum(plan.tokens for plan in planned)
        approve(image_tokens)
        text_tokens = sum(len(text.ids) for text in texts if isinstance(text, TextTokens))
        try:
            hold.take_tokens(image_tokens + text_tokens, within_s=call.deadline_s - time.monotonic())
        except Invalid as error:
            error.param = error.param if image_tokens else "texts"
            raise
        steps = self._images.steps(call, seen, plans)
        steps += [partial(self._texts.embed, call, text, tokenize_s) for text in texts]
        outcomes = await each(steps, call.on_failure)
        if call.fetches_s:
            fetch_s = max(call.fetches_s)
            return [replace(item, fetch_s=fetch_s) if isinstance(item, EmbeddedImage) else item for item in outcomes]
        return outcomes


def _remembers(hold: Hold, parameters: EmbedParameters) -> bool:
    """Nothing is remembered of token vectors, which are large, of documents, or of images that one budget bounds
    together."""
    return parameters.max_request_tokens is None and not hold.documents and not parameters.wants_tokens


def _fail(
    error: ServiceError, *, partial: bool, fields: Sequence[str], owners: Mapping[int, int] = MappingProxyType({})
) -> ServiceError:
    """fields: of each item, what brought its images, as in `Hold`. owners: the documents of images, by index, whose
    errors are theirs."""
    if error.param == "image" and error.index is not None and fields:
        error.param = fields[error.index]
    if error.index is not None:
        error.index = owners.get(error.index, error.index)
    if not partial:
        raise error
    return error
