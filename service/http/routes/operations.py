"""What operators and machines ask: how is it doing, and what is it."""

import asyncio
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, get_args

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from starlette.responses import PlainTextResponse, Response

from model.fingerprint import identity_of, least_cosines, variant_of
from model.images import container
from model.images.decode import DECODE_MODES, DecodeMode
from service.engine.client import EngineClient
from service.fetching.allowlist import Allowed
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.parameters import EmbedParameters

VERSION = version("packlight")


def operations_router(
    client: EngineClient,
    limits: Limits,
    metrics: Metrics,
    *,
    decode: DecodeMode,
    image_urls: Allowed,
    dialects: Sequence[dict[str, Any]],
) -> APIRouter:
    """dialects: as `Dialect.described` gives them."""
    router = APIRouter()
    # Read from files: once, and not in every answer.
    versions = {"packlight": VERSION, "torch": version("torch"), "python": platform.python_version()}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def prometheus(request: Request) -> Response:
        metrics.engine_up.set(client.all_devices_ready)
        exemplars = metrics.shows_exemplars and "application/openmetrics-text" in request.headers.get("accept", "")
        # Takes milliseconds, and reads files if there are several processes.
        content = await asyncio.to_thread(metrics.exposition_with_exemplars if exemplars else metrics.exposition)
        return Response(content, media_type=OPENMETRICS if exemplars else CONTENT_TYPE_LATEST)

    @router.get("/version", summary="The version of the server")
    async def server_version() -> dict[str, str]:
        return {"version": VERSION}

    @router.get("/info", summary="What is served, and within which limits")
    async def info() -> dict[str, Any]:
        return {
            "model": client.model.described(),
            "limits": asdict(limits),
            "vectors": _vectors(client.model),
            "strategies": client.model.geometry.strategies,
            "formats": container.formats(),
            "image_urls": image_urls,
            "dialects": dialects,
            "versions": versions,
            "fingerprint": _fingerprint(client.model, decode),
        }

    return router


def _fingerprint(model: ModelFacts, decode: DecodeMode) -> dict[str, Any]:
    """The fingerprint of images' vectors, and which others may stand beside it in an index."""
    value = model.fingerprint_of(decode)
    return {
        "value": value,
        "decode": decode,
        "by_decode": {mode: model.fingerprint_of(mode) for mode in DECODE_MODES},
        "identity": identity_of(value),
        "variant": variant_of(value),
        "least_cosine": least_cosines(value),
        "old_form": next((old for old, new in model.old_fingerprints.items() if new == value), None),
        "meaning": "identity is a digest of weights, the model's shape and preprocessing (anyres tiles included): "
        "vectors with different identities do not belong in one index. variant is the dtype, with -fast for that "
        "decode mode: vectors of other variants of the identity are the same up to rounding, with the least_cosine "
        "that was measured. expect_fingerprint takes the value, the identity alone, or the old form",
    }


def _vectors(model: ModelFacts) -> dict[str, Any]:
    """How embeddings may be asked for, and how integers become floats again."""
    allowed = model.matryoshka_dimensions
    return {
        "embedding_types": get_args(EmbedParameters.model_fields["embedding_type"].annotation),
        "dimensions": {"most": model.dim, "model_allows": "any" if allowed == () else allowed},
        "int8": {
            "clip": model.int8.clip,
            "factor": model.int8.factor(model.dim),
            "calibrated": model.int8.calibrated,
            "meaning": "int8 = round(v * factor), clipped to -127..127; uint8 = int8 + 128; v = int8 / factor, where "
            "factor = 127 * sqrt(dimensions) / clip",
        },
    }
