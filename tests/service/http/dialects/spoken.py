"""How each dialect asks for the vectors of images and texts, and where its answer has them. Images of one request come
before its texts."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from tests.service.running import Running


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{b64(data)}"


@dataclass(frozen=True)
class Spoken:
    """body: of images as data URIs and of texts. vectors, tokens: of an answer; tokens is None if it does not say.

    optional: every field that may be left out, with a value. named: how an error names the given image or text.
    nested: the path of an object within the body, if there is one. Every second step of it is an object too.
    shares_path: an error is in another shape until the body is known.
    """

    name: str
    path: str
    body: Callable[[Sequence[str], Sequence[str]], dict[str, Any]]
    vectors: Callable[[dict[str, Any]], list[list[float]]]
    tokens: Callable[[dict[str, Any]], int | None]
    error: Callable[[dict[str, Any]], str]
    error_keys: frozenset[str]
    optional: dict[str, Any]
    named: Callable[[str, int], str]
    nested: tuple[str | int, ...] | None = None
    shares_path: bool = False

    def ask(
        self, server: Running, images: Sequence[str] = (), texts: Sequence[str] = (), /, **fields: Any
    ) -> httpx.Response:
        return server.http.post(self.path, json=self.body(images, texts) | fields)

    def refusal(self, answer: httpx.Response) -> tuple[int, str]:
        """Status and message, after a look at the shape."""
        body = answer.json()
        assert body.keys() == self.error_keys, body
        return answer.status_code, self.error(body)


def _cohere(images: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    parts += [{"type": "text", "text": text} for text in texts]
    return {"inputs": [{"content": [part]} for part in parts], "input_type": "search_document"}


def _voyage(images: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    parts = [{"type": "image_base64", "image_base64": image} for image in images]
    parts += [{"type": "text", "text": text} for text in texts]
    return {"inputs": [{"content": [part]} for part in parts]}


def _openai(images: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    parts += [{"type": "text", "text": text} for text in texts]
    return {"input": parts}


def _openai_error(body: dict[str, Any]) -> str:
    error = body["error"]
    return f"{error['param']}[{error['index']}]: {error['message']}"


def _of_list(name: str) -> Callable[[str, int], str]:
    return lambda kind, place: f"{name}[{place}]"


COHERE = Spoken(
    name="cohere",
    path="/v2/embed",
    body=_cohere,
    vectors=lambda answer: answer["embeddings"]["float"],
    tokens=lambda answer: sum(answer["meta"]["billed_units"].get(of, 0) for of in ("image_tokens", "input_tokens")),
    error=lambda body: body["message"],
    error_keys=frozenset({"message"}),
    optional={
        "model": "packlight-tiny", "input_type": "image", "embedding_types": ["float"],
        "output_dimension": 8, "truncate": "END", "max_tokens": 64, "max_pixels": 4096, "priority": 1,
    },
    named=_of_list("inputs"),
    nested=("inputs", 0, "content", 0),
)  # fmt: skip
VOYAGE = Spoken(
    name="voyage",
    path="/v1/multimodalembeddings",
    body=_voyage,
    vectors=lambda answer: [item["embedding"] for item in answer["data"]],
    tokens=lambda answer: answer["usage"]["total_tokens"],
    error=lambda body: body["detail"],
    error_keys=frozenset({"detail"}),
    optional={
        "model": "packlight-tiny", "input_type": "document", "truncation": True, "output_dtype": "float",
        "output_dimension": 8, "encoding_format": "base64", "output_encoding": "base64", "max_tokens": 64,
        "max_pixels": 4096,
    },
    named=_of_list("inputs"),
    nested=("inputs", 0, "content", 0),
)  # fmt: skip

OPENAI = Spoken(
    name="openai",
    path="/v1/embeddings",
    body=_openai,
    vectors=lambda answer: [item["embedding"] for item in answer["data"]],
    tokens=lambda answer: answer["usage"]["total_tokens"],
    error=_openai_error,
    error_keys=frozenset({"error", "detail"}),
    optional={
        "model": "packlight-tiny", "user": "me", "request_id": "1", "priority": 0, "cache_salt": "salt",
        "max_tokens": 64, "max_pixels": 4096, "mm_processor_kwargs": {"max_num_patches": 16},
        "truncate_prompt_tokens": -1, "truncation_side": "right", "truncate": "END", "padding": "max_length",
        "add_special_tokens": True, "input_type": "query", "encoding_format": "base64", "embed_dtype": "float16",
        "endianness": "big", "embed_endianness": "little", "dimensions": 8, "use_activation": False,
        "normalize": False, "add_generation_prompt": True, "continue_final_message": True, "chat_template": "a",
        "chat_template_kwargs": {"a": 1}, "media_io_kwargs": {"video": {"fps": 1}}, "modality": "image",
    },
    named=_of_list("input"),
    nested=("input", 0),
)  # fmt: skip
POOLING = replace(
    OPENAI,
    name="pooling",
    path="/pooling",
    error_keys=frozenset({"error"}),
    vectors=lambda answer: [item["data"] for item in answer["data"]],
    optional=OPENAI.optional | {"task": "embed"},
)

JINA = Spoken(
    name="jina",
    path="/v1/embeddings",
    body=lambda images, texts: {
        "input": [*({"image": image} for image in images), *({"text": text} for text in texts)]
    },
    vectors=VOYAGE.vectors,
    tokens=VOYAGE.tokens,
    error=VOYAGE.error,
    error_keys=VOYAGE.error_keys,
    optional={
        "model": "packlight-tiny", "embedding_type": "float", "encoding_type": "float", "encoding_format": "float",
        "dimensions": 8, "normalized": True, "task": "text-matching", "truncate": True, "late_chunking": False,
        "return_multivector": False, "user": "me", "max_tokens": 64, "max_pixels": 4096,
    },
    named=_of_list("input"),
    nested=("input", 0),
    shares_path=True,
)  # fmt: skip
VOYAGE_TEXTS = Spoken(
    name="voyage",
    path="/v1/embeddings",
    body=lambda images, texts: {"input": [*images, *texts], "truncation": True},
    vectors=VOYAGE.vectors,
    tokens=VOYAGE.tokens,
    error=VOYAGE.error,
    error_keys=VOYAGE.error_keys,
    optional={name: value for name, value in VOYAGE.optional.items() if name not in ("output_encoding", "truncation")},
    named=_of_list("input"),
    shares_path=True,
)
WEAVIATE = Spoken(
    name="weaviate",
    path="/vectorize",
    body=lambda images, texts: {"images": [*images], "texts": [*texts]},
    vectors=lambda answer: answer["imageVectors"] + answer["textVectors"],
    tokens=lambda answer: None,
    error=lambda body: body["error"],
    error_keys=frozenset({"error"}),
    optional={},
    named=lambda kind, place: f"{kind}s[{place if kind == 'image' else 0}]",
)

# Immich's requests are forms of one image or text, with tests of their own.
DIALECTS = (OPENAI, POOLING, COHERE, VOYAGE, VOYAGE_TEXTS, JINA, WEAVIATE)
