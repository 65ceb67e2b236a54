"""`POST /rerank`, as vLLM, Jina and Cohere shape it: images and texts in the order of their likeness to a query."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, Field

from service.errors import Invalid
from service.http.dialects.conversations import HEADERS
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked
from service.http.dialects.openai import OpenAIUsage, error, usage_of
from service.http.dialects.scores import Scored, ScoredList, ScoringOptions, cosines, request_of
from service.requests.request import Input, TextInput
from service.requests.results import EmbeddedItem


class RerankRequest(ScoringOptions):
    """A query and documents, each a text or an image."""

    query: Scored = Field(description="What the documents are compared with: a text or an image.")
    documents: Scored | ScoredList = Field(description="Texts and images, each one document.")
    top_n: int | None = Field(None, ge=0, description="Most documents in the answer. 0: all.")
    return_documents: bool | None = Field(
        None, description="false: texts are not repeated in the answer. Images never are."
    )
    raw_scores: bool | None = Field(None, description="true, which infinity answers with logits, is refused.")


class RankedDocument(BaseModel):
    text: str


class RankedItem(BaseModel):
    index: int = Field(description="The place among the documents as they were sent.")
    relevance_score: float = Field(description="The cosine of the query's and the document's vector.")
    document: RankedDocument | None = Field(
        None, description="A document that is a text, unless return_documents is false."
    )


class BilledTokens(BaseModel):
    input_tokens: int


class RerankMeta(BaseModel):
    tokens: BilledTokens


class RerankAnswer(BaseModel):
    """The results, most alike first."""

    id: str | None = None
    model: str
    results: list[RankedItem]
    usage: OpenAIUsage
    meta: RerankMeta = Field(description="The same count, as Cohere's clients look for it.")


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    given = checked(RerankRequest, body.content)
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
    return Asked(request, partial(_answer, about=about, texts=texts, most=given.top_n or len(texts)))


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


def _text(document: Input) -> str | None:
    """The text of a document that is one. Images would stay in memory until the answer is written."""
    return document.content if isinstance(document, TextInput) and isinstance(document.content, str) else None


def _answer(
    embedded: Sequence[EmbeddedItem], *, about: dict[str, Any], texts: Sequence[str | None], most: int
) -> dict[str, Any]:
    scores = cosines(embedded[:1], embedded[1:])
    # Equal scores stay in the order of the documents.
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:most]
    usage = usage_of(embedded)
    return about | {
        "results": [
            {"index": index, "relevance_score": scores[index]}
            | ({} if texts[index] is None else {"document": {"text": texts[index]}})
            for index in order
        ],
        "usage": usage,
        "meta": {"tokens": {"input_tokens": usage["total_tokens"]}},
    }
