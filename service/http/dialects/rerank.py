"""`POST /rerank`, as vLLM, Jina, Cohere and Voyage shape it: images and texts by their likeness to a query.

Cohere's clients read an error's `message`, Jina's its `detail`, the others its `error`: here it has all three.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.conversations import HEADERS
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.openai import OpenAIUsage, shared_error, usage_of
from service.http.dialects.scores import Scored, ScoredList, ScoringOptions, cosines, request_of
from service.requests.request import Input, TextInput
from service.requests.results import EmbeddedItem

# Each result, most alike first, and its document if that is a text to repeat.
Ranked = list[tuple[dict[str, Any], str | None]]


class RerankRequest(ScoringOptions):
    """A query and documents, each a text or an image."""

    query: Scored = Field(description="What the documents are compared with: a text or an image.")
    documents: Scored | ScoredList = Field(description="Texts and images, each one document.")
    top_n: int | None = Field(None, ge=0, description="Most documents in the answer. 0: all.")
    return_documents: bool | None = Field(
        None, description="false: texts are not repeated in the answer. Images never are."
    )
    raw_scores: bool | None = Field(None, description="true, which infinity answers with logits, is refused.")


class VoyageRerankRequest(RerankRequest):
    """The same with Voyage's names."""

    top_k: int | None = Field(None, ge=0, description="top_n, as Voyage names it.")
    truncation: bool = Field(True, description="false: a text that is too long is an error, as truncate=NONE.")


class RankedDocument(BaseModel):
    text: str


class RankedItem(BaseModel):
    index: int = Field(description="The place among the documents as they were sent.")
    relevance_score: float = Field(description="The cosine of the query's and the document's vector.")
    document: RankedDocument | None = Field(
        None, description="A document that is a text, unless return_documents is false."
    )


class VoyageRankedItem(BaseModel):
    index: int = Field(description="The place among the documents as they were sent.")
    relevance_score: float = Field(description="The cosine of the query's and the document's vector.")
    document: str | None = Field(None, description="A document that is a text, if return_documents is true.")


class BilledTokens(BaseModel):
    input_tokens: int


class RerankMeta(BaseModel):
    tokens: BilledTokens


class RerankAnswer(BaseModel):
    """The results, most alike first."""

    id: str | None = None
    model: str
    results: list[RankedItem]
    data: list[VoyageRankedItem] = Field(description="The results without documents, where Voyage's clients look.")
    usage: OpenAIUsage
    meta: RerankMeta = Field(description="The same count, as Cohere's clients look for it.")


class VoyageRerankAnswer(BaseModel):
    """Voyage's shape."""

    object: Literal["list"]
    data: list[VoyageRankedItem]
    model: str
    usage: OpenAIUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    return _asked(checked(RerankRequest, body.content), body, served, _answer)


def is_voyages(body: Body) -> bool:
    """Its client always sends `truncation`."""
    return "truncation" in body.content or "top_k" in body.content


def read_voyages(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    given = checked(VoyageRerankRequest, body.content)
    for theirs, ours in (("top_k", "top_n"), ("truncation", "truncate")):
        if {theirs, ours} <= given.model_fields_set:
            raise Invalid(f"{theirs} and {ours} say the same; send one of them", param=theirs)
    update = {
        "top_n": given.top_n if given.top_k is None else given.top_k,
        "truncate": given.truncate if given.truncation else "NONE",
        "return_documents": given.return_documents or False,
    }
    return _asked(given.model_copy(update=update), body, served, _voyages_answer)


def error(fault: ServiceError) -> dict[str, Any]:
    return shared_error(fault) | {"message": placed(fault)}


def voyages_error(fault: ServiceError) -> dict[str, Any]:
    return {"detail": placed(fault)}


def _asked(
    given: RerankRequest, body: Body, served: Served, write: Callable[[dict[str, Any], Ranked], dict[str, Any]]
) -> Asked:
    """write: the answer, from what stands in every answer and the results. Raises `ServiceError`."""
    served.check_name(given.model)
    if given.raw_scores:
        raise Invalid("a score is a cosine; /info has the logit_scale and logit_bias of logits", param="raw_scores")
    request, (query, documents) = request_of(
        given, [("query", given.query), ("documents", given.documents)], body, served
    )
    if len(query) != 1:
        raise Invalid("the query is one text or one image", param="query")
    texts = [None if given.return_documents is False else _text(each) for each in documents]
    about = given.answer_id | {"model": served.model.name}
    ranked = partial(_ranked, texts=texts, most=given.top_n or len(texts))
    return Asked(request, lambda embedded: write(about | {"usage": usage_of(embedded)}, ranked(embedded)))


RERANK = Dialect(
    name="rerank",
    paths=("/rerank", "/v1/rerank", "/v2/rerank"),
    model=RerankRequest,
    read=read,
    error=error,
    answer=RerankAnswer,
    summary="Images and texts by their likeness to a query, as vLLM, Jina and Cohere have it",
    headers=HEADERS,
)
VOYAGE_RERANK = Dialect(
    name="voyage",
    paths=("/v1/rerank",),
    model=VoyageRerankRequest,
    read=read_voyages,
    error=voyages_error,
    answer=VoyageRerankAnswer,
    summary="Images and texts by their likeness to a query, as Voyage has it",
    is_meant=is_voyages,
    headers=HEADERS,
)


def _text(document: Input) -> str | None:
    """The text of a document that is one. Images would stay in memory until the answer is written."""
    return document.content if isinstance(document, TextInput) and isinstance(document.content, str) else None


def _ranked(embedded: Sequence[EmbeddedItem], *, texts: Sequence[str | None], most: int) -> Ranked:
    scores = cosines(embedded[:1], embedded[1:])
    # Equal scores stay in the order of the documents.
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:most]
    return [({"index": index, "relevance_score": scores[index]}, texts[index]) for index in order]


def _answer(about: dict[str, Any], ranked: Ranked) -> dict[str, Any]:
    results = [item if text is None else item | {"document": {"text": text}} for item, text in ranked]
    # A request with neither top_k nor truncation may be Voyage's all the same.
    data = [item for item, _ in ranked]
    return about | {
        "results": results,
        "data": data,
        "meta": {"tokens": {"input_tokens": about["usage"]["total_tokens"]}},
    }


def _voyages_answer(about: dict[str, Any], ranked: Ranked) -> dict[str, Any]:
    data = [item if text is None else item | {"document": text} for item, text in ranked]
    return about | {"object": "list", "data": data}
