"""What a request came to, as JSON, numpy or safetensors bytes.

Runs in a thread where an answer is large, and works in pieces, so that no piece keeps the event loop waiting.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan
from service.errors import Invalid
from service.limits import ModelFacts
from service.requests.embedder import EmbeddedImage, ImageOutcome
from service.requests.parameters import EmbedParameters
from service.requests.results import image_embedding, normalized
from service.requests.token_positions import mrope_positions, v2pe_positions

Format = Literal["json", "npy", "safetensors"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "npy": "application/x-npy",
    "safetensors": "application/x-safetensors",
}
# Token vectors beyond this many bytes as float32 are not written as JSON numbers: they would take five times that.
MAX_JSON_TOKEN_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Pieces of a body, to be sent one after the other."""

    pieces: list[bytes]
    headers: dict[str, str]

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


def choose_format(accept: str, parameters: EmbedParameters) -> Format:
    """The format that an `Accept` header asks for, else JSON. Raises `Invalid` where it cannot hold the answer."""
    chosen: Format = next((name for name, kind in MEDIA_TYPES.items() if kind in accept and name != "json"), "json")
    if chosen == "json":
        return chosen
    if parameters.partial:
        raise Invalid(f"{MEDIA_TYPES[chosen]} has no room for errors; with partial, ask for JSON", param="partial")
    if parameters.output == "segments" or (chosen == "npy" and parameters.output != "embedding"):
        raise Invalid(f"{MEDIA_TYPES[chosen]} cannot hold output={parameters.output}", param="output")
    return chosen


def check_size(tokens: int, model: ModelFacts, parameters: EmbedParameters, chosen: Format) -> None:
    """Raises `Invalid` for token vectors that are too many for JSON numbers. Known before an image is decoded."""
    as_numbers = chosen == "json" and parameters.encoding == "float" and parameters.wants_tokens
    vectors = model.output_tokens(tokens)
    if as_numbers and vectors * model.token_dim * 4 > MAX_JSON_TOKEN_BYTES:
        raise Invalid(
            f"{vectors} token vectors of {model.token_dim} take over {MAX_JSON_TOKEN_BYTES:,} bytes; "
            f"ask for encoding=base64 or Accept: {MEDIA_TYPES['safetensors']}",
            param="encoding",
        )


def write_answer(
    outcomes: Sequence[ImageOutcome], parameters: EmbedParameters, model: ModelFacts, chosen: Format
) -> Answer:
    if chosen == "json":
        return Answer(_json_pieces(outcomes, parameters, model), {})
    images = [image for image in outcomes if isinstance(image, EmbeddedImage)]
    fingerprint = model.fingerprint_of(parameters.decode)
    if chosen == "npy":
        file = io.BytesIO()
        np.save(file, np.stack([embedding_of(image, parameters.normalize) for image in images]))
        counts = ",".join(str(image.plan.tokens) for image in images)
        return Answer([file.getvalue()], {"X-Image-Tokens": counts, "X-Fingerprint": fingerprint})
    metadata = {"fingerprint": fingerprint, "model": model.name}
    return Answer([safetensors.numpy.save(_tensors(images, parameters, model), metadata)], {})


def embedding_of(image: EmbeddedImage, normalize: bool) -> NDArray[np.float32]:
    """float32 `[D]`: the image's one vector."""
    return image_embedding(image.result.pooled, normalize=normalize)


def _tensors(
    images: Sequence[EmbeddedImage], parameters: EmbedParameters, model: ModelFacts
) -> dict[str, NDArray[Any]]:
    tensors = grid_tensors([image.plan for image in images])
    if parameters.wants_embedding:
        tensors["embeddings"] = np.stack([embedding_of(image, parameters.normalize) for image in images])
    if parameters.wants_tokens:
        vectors = [_tokens_of(image) for image in images]
        tensors["token_embeddings"] = np.concatenate(vectors)
        tensors["cu_tokens"] = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
        positions = [found for image in images if (found := _positions(image.plan, parameters, model)) is not None]
        tensors |= {"positions": np.concatenate(positions)} if positions else {}
    return tensors


def grid_tensors(plans: Sequence[ImagePlan]) -> dict[str, NDArray[Any]]:
    """grids: int32 `[B, 2]`, of each image's first segment.

    Where any image has more than one, also segment_grids: int32 `[S, 2]`, of all segments end to end, and cu_segments:
    int32 `[B+1]`, where each image's begin and the last one's end.
    """
    tensors = {"grids": np.array([plan.segments[0].grid for plan in plans], np.int32).reshape(-1, 2)}
    counts = [len(plan.segments) for plan in plans]
    if any(count > 1 for count in counts):
        grids = [segment.grid for plan in plans for segment in plan.segments]
        tensors["segment_grids"] = np.array(grids, np.int32)
        tensors["cu_segments"] = np.cumsum([0, *counts], dtype=np.int32)
    return tensors


def _json_pieces(outcomes: Sequence[ImageOutcome], parameters: EmbedParameters, model: ModelFacts) -> list[bytes]:
    tokens = sum(outcome.plan.tokens for outcome in outcomes if isinstance(outcome, EmbeddedImage))
    answered = sum(isinstance(outcome, EmbeddedImage) for outcome in outcomes)
    fingerprint = model.fingerprint_of(parameters.decode)
    head = orjson.dumps({"model": model.name, "dim": model.dim, "fingerprint": fingerprint})
    tail = orjson.dumps({"usage": {"images": answered, "tokens": tokens}})
    pieces = [head[:-1] + b',"data":[']
    for index, outcome in enumerate(outcomes):
        pieces.append((b"," if index else b"") + _item(index, outcome, parameters, model))
    pieces.append(b"]," + tail[1:])
    return pieces


def _item(index: int, outcome: ImageOutcome, parameters: EmbedParameters, model: ModelFacts) -> bytes:
    if not isinstance(outcome, EmbeddedImage):
        return orjson.dumps({"index": index, "error": outcome.body()})
    plan = outcome.plan
    item: dict[str, Any] = {"index": index}
    if parameters.wants_embedding:
        item["embedding"] = _encoded(embedding_of(outcome, parameters.normalize), parameters.encoding)
    if parameters.wants_tokens:
        tokens = _tokens_of(outcome)
        item["token_embeddings"] = {"shape": tokens.shape, "data": _encoded(tokens, parameters.encoding)}
        if (positions := _positions(plan, parameters, model)) is not None:
            data = _encoded(positions, parameters.encoding)
            item["positions"] = {"shape": positions.shape, "dtype": positions.dtype.name, "data": data}
    if parameters.output == "segments":
        item["segments"] = _segments(outcome, parameters)
    elif len(plan.segments) > 1:
        item["segments"] = describe_segments(plan)
    item |= {
        "tokens": plan.tokens,
        "output_tokens": model.output_tokens(plan.tokens),
        "grid": plan.segments[0].grid,
        "size": plan.size,
        "resized": plan.resized,
        "strategy": plan.strategy,
        "token_cap": plan.token_cap,
    }
    return orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)


def _segments(image: EmbeddedImage, parameters: EmbedParameters) -> list[dict[str, Any]]:
    pooled = normalized(image.result.pooled) if parameters.normalize else image.result.pooled
    return [
        place | {"embedding": _encoded(vector, parameters.encoding)}
        for place, vector in zip(describe_segments(image.plan), pooled, strict=True)
    ]


def describe_segments(plan: ImagePlan) -> list[dict[str, Any]]:
    """What each segment is, where it stands among the others, and where its tokens stand among the image's."""
    return [
        asdict(segment) | {"tokens": segment.tokens, "offset": offset}
        for segment, offset in zip(plan.segments, plan.offsets[:-1], strict=True)
    ]


def _tokens_of(image: EmbeddedImage) -> NDArray[np.float32]:
    assert image.result.tokens is not None, "tokens were asked for, and the engine gave none"
    return image.result.tokens


def _positions(plan: ImagePlan, parameters: EmbedParameters, model: ModelFacts) -> NDArray[Any] | None:
    """Of an image's token vectors: by default M-RoPE's where tokens are merged for a language model, else none."""
    if parameters.v2pe_delta is not None:
        return v2pe_positions(model.output_tokens(plan.tokens), parameters.v2pe_delta)
    if parameters.positions is None and model.geometry.merged_tokens == 1:
        return None
    return mrope_positions(plan.segments[0].grid, model.geometry.native_factor)


def _encoded(values: NDArray[Any], encoding: str) -> str | NDArray[Any]:
    """Numbers for orjson to write in the shortest form that reads back as the same, or base64, little-endian."""
    if encoding == "base64":
        return base64.b64encode(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data).decode()
    return np.ascontiguousarray(values)
