"""The stages of images: header, plan, patch rows, queue, result."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.images.decode import ImageHeader
from model.sizing.plan import ImagePlan
from service.engine.client import ImageJob, JobClient, JobResult
from service.errors import ServiceError
from service.metrics import Metrics
from service.requests.cache.flights import Lead
from service.requests.decoder import Decoder
from service.requests.documents.embedder import DocumentEmbedder
from service.requests.image_planner import ImagePlanner
from service.requests.results import EmbeddedImage, Outcome
from service.requests.stages.call import EmbedCall
from service.requests.stages.checks import check_image
from service.requests.stages.gathering import Gathering
from service.requests.steps import in_time, raised
from service.requests.url_images import UrlImages


class ImageStages:
    """Serves many calls at once."""

    def __init__(
        self,
        client: JobClient,
        decoder: Decoder,
        planner: ImagePlanner,
        metrics: Metrics,
        url_images: UrlImages | None,
        documents: DocumentEmbedder | None,
    ) -> None:
        """url_images: None if no image comes from a URL. documents: None unless the model makes one vector of several
        inputs."""
        self._client, self._decoder, self._planner, self._metrics = client, decoder, planner, metrics
        self._url_images, self._documents = url_images, documents

    def plain_headers(self, call: EmbedCall) -> Sequence[ImageHeader]:
        """Those of all images, if they can be read at once; else none. So no image of most requests needs a step."""
        if call.recall.remembers or call.hold.urls:
            return ()
        headers = [self._decoder.plain_header(data) for data in call.hold.images]
        return [header for header in headers if header is not None] if None not in headers else ()

    async def look(self, call: EmbedCall, index: int) -> ImageHeader | EmbeddedImage | Lead:
        """The header of an image, which is fetched first if it comes from a URL; or what is remembered of it."""
        hold = call.hold
        if index in hold.faults:
            raise hold.faults[index]
        if index in hold.urls:
            assert self._url_images is not None, "a URL was let in without a fetcher"
            began_s = time.monotonic()
            await in_time(self._url_images.fetch(hold, index), call.deadline_s)
            call.fetches_s.append(time.monotonic() - began_s)
            self._metrics.stages["fetch"].observe(call.fetches_s[-1])
        if (known := await call.recall.look(index)) is not None:
            return known
        with call.recall.embedding(index):
            return await self._header(call, index)

    async def _header(self, call: EmbedCall, index: int) -> ImageHeader:
        return await in_time(self._decoder.header(call.hold.images[index]), call.deadline_s)

    def plans(
        self,
        call: EmbedCall,
        headers: Mapping[int, ImageHeader | ServiceError],
        on_failure: Callable[[ServiceError], ServiceError],
    ) -> dict[int, ImagePlan | ServiceError]:
        """By index, as headers are. Raises `Invalid` for a budget that no image could meet."""
        sizes = {index: header.size for index, header in headers.items() if isinstance(header, ImageHeader)}
        planned = self._planner.plan(sizes, call.parameters, call.bounds)
        plans: dict[int, ImagePlan | ServiceError] = {}
        for index, header in headers.items():
            if isinstance(header, ServiceError):
                plans[index] = header
                continue
            plan = planned[index]
            plans[index] = plan if isinstance(plan, ImagePlan) else on_failure(plan)
        return plans

    def steps(
        self,
        call: EmbedCall,
        seen: Sequence[ImageHeader | ServiceError | EmbeddedImage | Lead],
        plans: Mapping[int, ImagePlan | ServiceError],
    ) -> list[Callable[[], Awaitable[Outcome]]]:
        """What makes the outcome of each image. plans: of those with a header; the others have been seen before."""
        steps: list[Callable[[], Awaitable[Outcome]]] = []
        planned = sum(isinstance(plan, ImagePlan) for plan in plans.values())
        gathering = Gathering(planned) if planned > 1 else None
        for index, known in enumerate(seen):
            if isinstance(known, ImageHeader | ServiceError):
                steps.append(partial(self._embed, call, index, known, plans[index], gathering))
            else:
                steps.append(partial(self._recall, call, index, known))
        return steps

    async def _recall(self, call: EmbedCall, index: int, known: EmbeddedImage | Lead) -> Outcome:
        """An image that was embedded before, or that another request embeds. It takes no tokens, unless the other
        comes to nothing."""
        image = await call.recall.wait(index, known, call.deadline_s) if isinstance(known, Lead) else known
        if image is None:
            with call.recall.embedding(index):
                header = await self._header(call, index)
                plan = self.plans(call, {index: header}, raised)[index]
                assert isinstance(plan, ImagePlan)
                self._metrics.image_tokens.observe(plan.tokens)
                call.hold.take_tokens(plan.tokens, within_s=call.deadline_s - time.monotonic())
            return await self._embed(call, index, header, plan)
        self._metrics.image_tokens.observe(image.plan.tokens)
        self._metrics.images_repaired.inc(image.repaired)
        check_image(image, call.parameters)
        return image

    async def _embed(
        self,
        call: EmbedCall,
        index: int,
        header: ImageHeader | ServiceError,
        plan: ImagePlan | ServiceError,
        gathering: Gathering | None = None,
    ) -> Outcome:
        """gathering: None for an image that waits for no other."""
        if isinstance(header, ServiceError):
            return header
        if isinstance(plan, ServiceError):
            return plan
        began_s = time.monotonic()
        with call.recall.embedding(index):
            try:
                upright, rows = await in_time(self._patches(call, index, plan), call.deadline_s)
            except BaseException:
                if gathering is not None:
                    gathering.leave()
                raise
            decode_s = time.monotonic() - began_s
            call.hold.drop_image(index)
            self._metrics.stages["decode"].observe(decode_s)
            if gathering is not None:
                await gathering.join(self._device_s(upright))
            held_s = time.monotonic() - began_s - decode_s
            result = await self._submit(call, rows, upright)
            if gathering is not None:
                result = replace(result, queue_s=result.queue_s + held_s)
        self._metrics.observe_queue(result.queue_s, bulk=call.hold.bulk)
        self._metrics.images_repaired.inc(header.repaired)
        image = EmbeddedImage(upright, result, decode_s, header.repaired, format=header.format)
        call.recall.embedded(index, image)
        check_image(image, call.parameters)
        return image

    async def _patches(self, call: EmbedCall, index: int, plan: ImagePlan) -> tuple[ImagePlan, NDArray[np.uint8]]:
        async with self._decoder.turn(bulk=call.hold.bulk):
            return await self._decoder.patches(call.hold.images[index], plan, call.parameters.decode)

    async def _submit(self, call: EmbedCall, rows: NDArray[np.uint8], plan: ImagePlan) -> JobResult:
        """As a document of its own, if the model makes one vector of several images and texts; so packs have them all
        in one forward. Token vectors are of images alone."""
        bulk, wants_tokens = call.hold.bulk, call.parameters.wants_tokens
        if self._documents is not None and not wants_tokens:
            return await self._client.submit(self._documents.image_job(rows, plan, call.deadline_s, bulk=bulk))
        grids = tuple(segment.grid for segment in plan.segments)
        job = ImageJob(rows, grids, self._padding_cap(plan), call.deadline_s, wants_tokens, bulk=bulk)
        return await self._client.submit(job)

    def _device_s(self, plan: ImagePlan) -> float:
        """What the image takes of the device, infinite before that is known."""
        cost = self._client.cost
        if cost is None:
            return math.inf
        return sum(cost.seconds(segment.tokens, segment.tokens**2, packs=0) for segment in plan.segments)

    def _padding_cap(self, plan: ImagePlan) -> int:
        """What metrics compare packing with. A fixed model's squares are all alike, so they would need no padding."""
        return self._client.model.geometry.fixed_tokens(plan.strategy) or plan.token_cap
