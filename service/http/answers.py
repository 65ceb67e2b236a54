"""The bytes of an answer: JSON, numpy or safetensors.

Knows no request. A large answer is written in a thread, and in pieces, so that no piece holds the event loop.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan
from service.http.dialects.embeddings import warning_headers
from service.http.formats import Format
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.results import (
    EmbeddedDocument,
    EmbeddedImage,
    EmbeddedItem,
    EmbeddedText,
    Outcome,
    cached_indices,
    cached_tokens_of,
    describe_plan,
    describe_segments,
    embedded_of,
    grid_tensors,
    images_of,
    pictures_of,
    repaired_indices,
)
from service.requests.token_positions import mrope_positions, row_positions, sequence_positions, v2pe_positions
from service.requests.vectors import to_base64


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A body in pieces, to be sent one after the other, and the headers that go with it. media_type: None for that of
    the format that was chosen."""

    pieces: list[bytes]
    headers: dict[str, str]
    media_type: str | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.pieces))


def write_answer(outcomes: Sequence[Outcome], parameters: EmbedParameters, model: ModelFacts, chosen: Format) -> Answer:
    embedded = embedded_of(outcomes)
    fingerprint = model.fingerprint_of(parameters.decode)
    headers = warning_headers(parameters.dimensions, model) | {"X-Fingerprint": fingerprint}
    if text := _text_fingerprint(embedded, model):
        headers["X-Text-Fingerprint"] = text["text_fingerprint"]
    if chosen == "json":
        return Answer(_json_pieces(outcomes, parameters, model), headers)
    if chosen == "npy":
        vectors = _embeddings(embedded, parameters, model)
        counts = ",".join(str(item.charged_tokens) for item in embedded)
        headers["X-Image-Tokens"] = counts
        if repaired := repaired_indices(embedded):
            headers["X-Image-Repaired"] = repaired
        if cached := cached_indices(embedded):
            headers["X-Image-Cached"] = cached
        return Answer([_npy_head(vectors.dtype, vectors.shape), vectors.tobytes()], headers)
    metadata = {"fingerprint": fingerprint, "model": model.name} | text
    metadata |= _type_named(parameters)
    if repaired := repaired_indices(embedded):
        metadata["repaired"] = repaired
    if cached := cached_indices(embedded):
        metadata["cached"] = cached
    return Answer([safetensors.numpy.save(_tensors(embedded, parameters, model), metadata)], headers)


@lru_cache(maxsize=64)
def _npy_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What numpy writes in front of the numbers of an array that is contiguous."""
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _type_named(parameters: EmbedParameters) -> dict[str, str]:
    """The type of the embeddings, unless it is the usual one."""
    return {"embedding_type": parameters.embedding_type} if parameters.embedding_type != "float" else {}


def _embeddings(embedded: Sequence[EmbeddedItem], parameters: EmbedParameters, model: ModelFacts) -> NDArray[Any]:
    """`[B, E]`, of the type that was asked for."""
    vectors = np.stack([item.embedding(normalize=parameters.normalize) for item in embedded])
    return parameters.vector_format.array(vectors, model.int8)


def _text_fingerprint(embedded: Sequence[EmbeddedItem], model: ModelFacts) -> dict[str, str]:
    """How the answer's texts became vectors; empty without texts."""
    has_text = model.text is not None and any(isinstance(item, EmbeddedText | EmbeddedDocument) for item in embedded)
    return {"text_fingerprint": model.text.fingerprint} if has_text and model.text else {}


def _tensors(
    embedded: Sequence[EmbeddedItem], parameters: EmbedParameters, model: ModelFacts
) -> dict[str, NDArray[Any]]:
    images = images_of(embedded)
    tensors = grid_tensors([image.plan for item in embedded for image in pictures_of(item)])
    if any(isinstance(item, EmbeddedDocument) for item in embedded):
        tensors["cu_images"] = np.cumsum([0, *(len(pictures_of(item)) for item in embedded)], dtype=np.int32)
    if parameters.wants_embedding:
        tensors["embeddings"] = _embeddings(embedded, parameters, model)
    if parameters.wants_tokens:
        vectors = [image.token_vectors for image in images]
        tensors["token_embeddings"] = np.concatenate(vectors)
        tensors["cu_tokens"] = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
        positions = [found for image in images if (found := _positions(image.plan, parameters, model)) is not None]
        if positions:
            tensors["positions"] = np.concatenate(positions)
    return tensors


def _json_pieces(outcomes: Sequence[Outcome], parameters: EmbedParameters, model: ModelFacts) -> list[bytes]:
    embedded = embedded_of(outcomes)
    usage = usage_of(embedded)
    fingerprint = model.fingerprint_of(parameters.decode)
    head = orjson.dumps(
        {"model": model.name, "dim": parameters.dimensions or model.dim, "fingerprint": fingerprint}
        | _type_named(parameters)
        | _text_fingerprint(embedded, model)
    )
    tail = orjson.dumps({"usage": usage})
    pieces = [head[:-1] + b',"data":[']
    for index, outcome in enumerate(outcomes):
        pieces.append((b"," if index else b"") + _item(index, outcome, parameters, model))
    pieces.append(b"]," + tail[1:])
    return pieces


def usage_of(embedded: Sequence[EmbeddedItem]) -> dict[str, int]:
    """Tokens of either kind apart, if any input had both."""
    documents = [item for item in embedded if isinstance(item, EmbeddedDocument)]
    pictures = sum(len(pictures_of(item)) for item in embedded)
    usage = {"images": pictures, "tokens": sum(item.charged_tokens for item in embedded)}
    if cached := cached_tokens_of(embedded):
        usage["cached_tokens"] = cached
    if texts := len([item for item in embedded if isinstance(item, EmbeddedText)]):
        usage["texts"] = texts
    if documents:
        usage |= {
            "inputs": len(documents),
            "image_tokens": sum(item.image_tokens for item in documents),
            "text_tokens": sum(item.text_tokens for item in documents),
        }
    return usage


def _item(index: int, outcome: Outcome, parameters: EmbedParameters, model: ModelFacts) -> bytes:
    match outcome:
        case EmbeddedImage():
            item = _image_item(outcome, parameters, model)
        case EmbeddedText():
            vector = parameters.vector_format.write(outcome.embedding(normalize=parameters.normalize), model.int8)
            tokens = {"tokens": outcome.charged_tokens, "truncated": outcome.truncated}
            item = {"kind": "text", "embedding": vector} | tokens
        case EmbeddedDocument():
            item = _document_item(outcome, parameters, model)
        case _:
            item = {"error": outcome.body()}
    return orjson.dumps({"index": index} | item, option=orjson.OPT_SERIALIZE_NUMPY)


def _document_item(document: EmbeddedDocument, parameters: EmbedParameters, model: ModelFacts) -> dict[str, Any]:
    vector = parameters.vector_format.write(document.embedding(normalize=parameters.normalize), model.int8)
    images = [
        {"output_tokens": model.output_tokens(image.plan.tokens)}
        | describe_plan(image.plan)
        | ({"repaired": True} if image.repaired else {})
        for image in document.images
    ]
    tokens = {"tokens": document.charged_tokens, "text_tokens": document.text_tokens, "truncated": document.truncated}
    return {"kind": "input", "embedding": vector} | tokens | {"images": images}


def _image_item(image: EmbeddedImage, parameters: EmbedParameters, model: ModelFacts) -> dict[str, Any]:
    plan = image.plan
    item: dict[str, Any] = {"kind": "image"}
    if parameters.wants_embedding:
        item["embedding"] = parameters.vector_format.write(image.embedding(normalize=parameters.normalize), model.int8)
    if parameters.wants_tokens:
        tokens = image.token_vectors
        item["token_embeddings"] = {"shape": tokens.shape, "data": encoded(tokens, parameters.encoding)}
        if (positions := _positions(plan, parameters, model)) is not None:
            data = encoded(positions, parameters.encoding)
            item["positions"] = {"shape": positions.shape, "dtype": positions.dtype.name, "data": data}
    if parameters.output == "segments":
        item["segments"] = _segments(image, parameters, model)
    elif len(plan.segments) > 1:
        item["segments"] = describe_segments(plan)
    item |= {"tokens": plan.tokens, "output_tokens": model.output_tokens(plan.tokens)} | describe_plan(plan)
    item |= {"cached": True} if image.cached else {}
    return item | ({"repaired": True} if image.repaired else {})


def _segments(image: EmbeddedImage, parameters: EmbedParameters, model: ModelFacts) -> list[dict[str, Any]]:
    return [
        place | {"embedding": parameters.vector_format.write(vector, model.int8)}
        for place, vector in zip(
            describe_segments(image.plan), image.segment_embeddings(normalize=parameters.normalize), strict=True
        )
    ]


def _positions(plan: ImagePlan, parameters: EmbedParameters, model: ModelFacts) -> NDArray[Any] | None:
    """Positions of an image's output tokens. The default is how the model's own language model counts."""
    if parameters.v2pe_delta is not None:
        return v2pe_positions(model.output_tokens(plan.tokens), parameters.v2pe_delta)
    wanted = parameters.positions or model.language_positions
    if wanted is None:
        return None
    if wanted == "mrope":
        return mrope_positions(plan.segments[0].grid, model.geometry.native_factor)
    if model.language_positions == "rows":
        return row_positions(plan.segments[0].grid)
    return sequence_positions(model.output_tokens(plan.tokens))


def encoded(values: NDArray[Any], encoding: str) -> str | NDArray[Any]:
    """Little-endian base64, or the array for orjson, which writes the shortest numbers that read back as the same."""
    return to_base64(values) if encoding == "base64" else np.ascontiguousarray(values)
