"""Bodies with one picture, in the shapes that vLLM, infinity and Jina read, and every object in them."""

import base64
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from service.http.dialects.dialect import Dialect
from service.http.dialects.openai import OPENAI
from service.http.dialects.pooling import POOLING
from service.http.dialects.rerank import RERANK
from service.http.dialects.scores import SCORES
from tests import pictures

PHOTO = pictures.small_photograph()


def uri(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def image_part(image: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(image)} | more}


@dataclass(frozen=True)
class Asked:
    """A body with `PHOTO` in it. items: the vectors of its answer; a score has none. tokens: what was charged.

    images: how often the picture is embedded.
    """

    dialect: Dialect
    body: dict[str, Any]
    items: Callable[[Any], list[list[float]]] = lambda answer: []
    tokens: Callable[[Any], int] = lambda answer: int(answer["usage"]["total_tokens"])
    images: int = 1

    @property
    def name(self) -> str:
        return f"{self.dialect.name}-{next(iter(self.body))}"


def _embeddings(answer: Any) -> list[list[float]]:
    return [item["embedding"] for item in answer["data"]]


_MESSAGES = {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}, image_part(PHOTO)]}]}
_CONTENT = {"content": [image_part(PHOTO)]}

BODIES = [
    Asked(OPENAI, {"input": [uri(PHOTO)], "mm_processor_kwargs": {}}, _embeddings),
    Asked(OPENAI, _MESSAGES, _embeddings),
    Asked(POOLING, {"input": uri(PHOTO)}, lambda answer: [item["data"] for item in answer["data"]]),
    Asked(SCORES, {"data_1": {"image": uri(PHOTO)}, "data_2": [_CONTENT]}, images=2),
    Asked(RERANK, {"query": image_part(PHOTO), "documents": [uri(PHOTO), _CONTENT]}, images=3),
]


def places(body: Any) -> Iterator[list[Any]]:
    """The path of every object in a body."""
    if isinstance(body, dict):
        yield []
    pairs = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in pairs:
        yield from ([key, *path] for path in places(value))


def put(body: dict[str, Any], path: list[Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a body with one more key in one of its objects."""
    changed = deepcopy(body)
    at: Any = changed
    for part in path:
        at = at[part]
    at[key] = value
    return changed
