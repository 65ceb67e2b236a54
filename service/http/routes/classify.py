"""`POST /classify`: images and candidate labels in, how well each label fits each image out."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from service.engine.client import EngineClient
from service.errors import Invalid, ServiceError, from_validation_error
from service.http import schemas
from service.http.answers import Answer, usage_of
from service.http.bodies.body import read_body
from service.http.context import RequestContext
from service.http.routes.embedding import EmbeddingRoute
from service.limits import ModelFacts
from service.requests.labels import (
    PromptVectors,
    label_vectors,
    logits_of,
    longest_prompt,
    probabilities_of,
    prompts_of,
)
from service.requests.parameters import OF_VECTORS, EmbedParameters, merged, read_parameters, read_query
from service.requests.results import EmbeddedDocument, EmbeddedImage, EmbeddedText, Outcome, embedded_of

_LABEL_FIELDS = ("labels", "templates", "raw")
_PLACE = "{}"

Label = Annotated[str, Field(min_length=1)]


def _with_place(template: str) -> str:
    if _PLACE not in template:
        raise ValueError(f"each of them has {_PLACE} where the label goes")
    return template


Template = Annotated[str, AfterValidator(_with_place), Field(json_schema_extra={"pattern": r"\{\}"})]


class LabelParameters(BaseModel):
    """What a request to `/classify` has beside the parameters of `/embed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Annotated[list[Label], Field(fail_fast=True)] = Field(
        min_length=1, description="What the images may show. A form has a field for each."
    )
    templates: Annotated[list[Template], Field(fail_fast=True)] = Field(
        ["{}"],
        min_length=1,
        description="Texts in which `{}` stands for the label. A label's vector is the mean over all templates.",
    )
    raw: bool = Field(False, description="Also answer the model's logits.")


def classify_router(route: EmbeddingRoute, client: EngineClient, *, max_text_chars: int) -> APIRouter:
    router = APIRouter()
    kept = PromptVectors()

    @router.post(
        "/classify",
        response_model=None,
        responses={200: schemas.classify_answer(), **schemas.error_responses()},
        summary="Classify images by labels, without training",
    )
    async def classify(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        body = await read_body(request, context.hold, route.body_limits, route.url_images)
        route.check_takes_text("labels")
        if route.model.text and route.model.text.logit_scale is None:
            raise Invalid(f"{route.model.name} was not trained to classify: it has no logits", param="labels")
        if context.hold.texts:
            raise Invalid("/classify takes labels, not texts", param="texts")
        if context.hold.documents:
            raise Invalid("/classify takes images, each alone, not inputs", param="inputs")
        if not context.hold.images:
            raise Invalid("the request has no image", param="image")
        query = read_query(request.scope["query_string"])
        _check_query(query)
        asked, parameters = _read(query, body.fields, body.json, route)
        _check(asked, max_texts=route.body_limits.max_texts, max_text_chars=max_text_chars)
        prompts = prompts_of(asked.labels, asked.templates)
        wanted = dict.fromkeys(prompt for own in prompts for prompt in own)
        doubts = client.trust.doubts
        known = kept.known(wanted, doubts=doubts)
        missing = [prompt for prompt in wanted if prompt not in known]
        image_count = len(context.hold.images)
        context.hold.keep(context.hold.images, missing)
        try:
            outcomes = await route.outcomes(request, parameters, "json")
        except ServiceError as error:
            raise _of_labels(error, image_count) from None
        made = await asyncio.to_thread(_vectors, missing, outcomes[image_count:])
        whole = {prompt: vector for prompt, (vector, truncated) in made.items() if not truncated}
        kept.keep(whole, doubts=doubts)
        vectors = known | {prompt: vector for prompt, (vector, _) in made.items()}
        fingerprint = route.model.fingerprint_of(parameters.decode)
        write = partial(_answer, outcomes, prompts, vectors, asked, route.model, fingerprint)
        return await route.respond(request, outcomes, write, "json", large=True)

    return router


def _check_query(query: Sequence[tuple[str, str]]) -> None:
    """Raises `Invalid` for labels that stand in the query, where they are not read."""
    for name, _ in query:
        if name in _LABEL_FIELDS:
            raise Invalid(f"{name} is in the query, and /classify reads it in a form or in JSON alone", param=name)


def _check(asked: LabelParameters, *, max_texts: int, max_text_chars: int) -> None:
    """Raises `Invalid` for prompts that are too many or too long, before they are made."""
    if (count := len(asked.labels) * len(asked.templates)) > max_texts:
        raise Invalid(
            f"labels times templates are {count} texts; at most {max_texts} are read (max_texts_per_request)",
            param="labels",
        )
    if (longest := longest_prompt(asked.labels, asked.templates)) > max_text_chars:
        raise Invalid(
            f"a label in its template has {longest} characters; the limit is {max_text_chars} (max_text_chars)",
            param="labels",
        )


def _read(
    query: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]], json: Mapping[str, Any], route: EmbeddingRoute
) -> tuple[LabelParameters, EmbedParameters]:
    """A form gives `labels` and `templates` once for each."""
    known = (*_LABEL_FIELDS, *EmbedParameters.model_fields)
    for name in (*json, *(name for name, _ in fields)):
        if name not in known:
            raise Invalid(f"there is no parameter {name[:40]!r}; there are: {', '.join(known)}", param=name[:40])
    own: dict[str, Any] = {name: json[name] for name in _LABEL_FIELDS if name in json}
    for name in ("labels", "templates"):
        if given := [value for field, value in fields if field == name]:
            own[name] = given
    own |= {name: value for name, value in fields if name == "raw"}
    try:
        asked = LabelParameters.model_validate(own)
    except ValidationError as error:
        raise from_validation_error(error, LabelParameters) from None
    texts = merged(query, [(name, value) for name, value in fields if name not in _LABEL_FIELDS])
    rest = {name: value for name, value in json.items() if name not in _LABEL_FIELDS}
    parameters = read_parameters(texts, rest, decode=route.default_decode)
    if parameters.output != "embedding":
        raise Invalid(f"/classify has no output={parameters.output}", param="output")
    for name in OF_VECTORS:
        if name in parameters.model_fields_set:
            raise Invalid(f"/classify answers no vectors, and has no {name}", param=name)
    return asked, parameters


def _vectors(prompts: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, tuple[NDArray[np.float32], bool]]:
    """The vector of each prompt, and whether its end was cut off, which another request may refuse. Raises the error
    of a prompt, since without it no image has an answer."""
    vectors = {}
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        if isinstance(outcome, ServiceError):
            raise _of_labels(outcome, 0)
        assert isinstance(outcome, EmbeddedText)
        vectors[prompt] = outcome.embedding(normalize=True), outcome.truncated
    return vectors


def _of_labels(error: ServiceError, images: int) -> ServiceError:
    """An error of a prompt names the labels that it was made from, and not its place behind the images."""
    if error.param == "texts" or (error.index is not None and error.index >= images):
        error.param, error.index = "labels", None
    return error


def _answer(
    outcomes: Sequence[Outcome],
    prompts: Sequence[Sequence[str]],
    vectors: Mapping[str, NDArray[np.float32]],
    asked: LabelParameters,
    model: ModelFacts,
    fingerprint: str,
) -> Answer:
    """outcomes: of the images and of the prompts that this request paid for. prompts: of each label. vectors: by
    prompt."""
    labels = label_vectors(prompts, vectors)
    usage = usage_of(embedded_of(outcomes))
    data = [
        {"index": index} | _item(outcome, labels, asked, model)
        for index, outcome in enumerate(outcomes)
        if not isinstance(outcome, EmbeddedText | EmbeddedDocument)
    ]
    body = {
        "model": model.name,
        "fingerprint": fingerprint,
        "labels": asked.labels,
        "data": data,
        # None are said too: labels are paid for once.
        "usage": usage | {"texts": usage.get("texts", 0)},
    }
    return Answer([orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)], {"X-Fingerprint": fingerprint})


def _item(
    outcome: EmbeddedImage | ServiceError, labels: NDArray[np.float32], asked: LabelParameters, model: ModelFacts
) -> dict[str, Any]:
    if isinstance(outcome, ServiceError):
        return {"error": outcome.body()}
    assert model.text is not None
    logits = logits_of(outcome.embedding(normalize=True)[None], labels, model.text)
    (probabilities,) = probabilities_of(logits, model.text)
    item = {"label": asked.labels[int(logits.argmax())], "probabilities": probabilities}
    return item | ({"logits": logits[0]} if asked.raw else {}) | {"tokens": outcome.charged_tokens}
