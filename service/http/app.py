"""Puts the pieces together: a FastAPI application behind the layers that every request passes.

DiscardUnread → Observe → CORS, where it is set → Gate → FastAPI → a route
"""

from collections.abc import Callable, Collection

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.engine.client import EngineClient
from service.errors import (
    BadRequest,
    ClientGone,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    let_go,
    unknown_error,
)
from service.http import schemas
from service.http.body import BodyLimits
from service.http.context import RequestContext
from service.http.forecast import Forecast
from service.http.gate import Gate
from service.http.observe import Observe
from service.http.responses import client_gone_response, error_response
from service.http.routes.embed import embed_router
from service.http.routes.images import ImageRoute
from service.http.routes.openai import openai_router
from service.http.routes.operations import VERSION, operations_router
from service.http.routes.plan import plan_router
from service.http.unread import DiscardUnread
from service.limits import Limits
from service.metrics import Metrics
from service.planning.choice import ServedModel
from service.requests.admission import Admission
from service.requests.decoder import Decoder
from service.requests.embedder import Embedder
from service.settings import Settings

_IMAGE_PATHS = ("/embed", "/v1/embeddings")
_PATHS = (*_IMAGE_PATHS, "/plan", "/v1/models", "/livez", "/readyz", "/metrics", "/info", "/docs", "/openapi.json")
# What a page's script may read of an answer.
_EXPOSED_HEADERS = ("Retry-After", "X-Request-ID", "Server-Timing", "X-Image-Tokens", "X-Fingerprint")


def create_app(
    settings: Settings,
    client: EngineClient,
    decoder: Decoder,
    metrics: Metrics,
    *,
    draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """The server as one ASGI application. Raises `SettingsError` for limits that do not fit the model."""
    limits = Limits.of(settings, client.model)
    admission = Admission(
        limits,
        max_inflight_bytes=settings.max_inflight_bytes,
        upload_timeout_s=settings.upload_timeout_ms / 1000,
        client=client,
        metrics=metrics,
    )
    metrics.serve(client.model, VERSION)
    embedder = Embedder(client=client, decoder=decoder, limits=limits, metrics=metrics)
    images = ImageRoute(
        embedder,
        client.model,
        body_limits=BodyLimits(
            max_upload_bytes=settings.max_upload_bytes,
            max_held_bytes=settings.max_inflight_bytes,
            max_images=settings.max_images_per_request,
            timeout_s=settings.upload_timeout_ms / 1000,
        ),
        default_timeout_s=settings.default_timeout_ms / 1000,
        default_decode=settings.decode,
    )
    api = FastAPI(
        title="Packlight",
        version=VERSION,
        description="Image embeddings at any resolution, no padding.",
        redirect_slashes=False,
    )
    api.include_router(embed_router(images))
    api.include_router(openai_router(images))
    served = ServedModel(client.model.name, client.model.geometry, limits, settings.max_decode_pixels)
    api.include_router(plan_router(client, served, upload_timeout_s=settings.upload_timeout_ms / 1000))
    api.include_router(
        operations_router(client, limits, metrics, decode=settings.decode, draining=draining),
        responses=schemas.common_responses(),
    )
    api.add_exception_handler(ServiceError, _answer_service_error)
    api.add_exception_handler(ClientGone, _answer_client_gone)
    api.add_exception_handler(Exception, _answer_unknown)
    api.add_exception_handler(HTTPException, _answer_http_exception)
    api.add_exception_handler(RequestValidationError, _answer_http_exception)
    gate = Gate(
        api,
        guarded_paths=_IMAGE_PATHS,
        api_keys=settings.all_api_keys(),
        metrics_open=settings.metrics_open,
        max_upload_bytes=settings.max_upload_bytes,
        admission=admission,
        forecast=Forecast(client.model.geometry, limits),
        client=client,
        draining=draining,
    )
    shared = _with_cors(gate, settings.cors_origins) if settings.cors_origins else gate
    return DiscardUnread(Observe(shared, routes=_PATHS, admission=admission, metrics=metrics))


def _with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Outside the gate: a browser asks for leave without a key, and is to read refusals too."""
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=_EXPOSED_HEADERS
    )


async def _answer_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return error_response(error, RequestContext.of(request.scope))


async def _answer_client_gone(request: Request, error: Exception) -> Response:
    let_go(error)
    return client_gone_response(RequestContext.of(request.scope))


async def _answer_unknown(request: Request, error: Exception) -> Response:
    """The layer outside logs it."""
    return error_response(unknown_error(), RequestContext.of(request.scope))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in our shape."""
    shaped = {404: NotFound("no such path"), 405: MethodNotAllowed(f"this path does not take {request.method}")}
    status = error.status_code if isinstance(error, HTTPException) else 400
    refusal = shaped.get(status) or BadRequest("the request is not one that this path takes")
    return error_response(refusal, RequestContext.of(request.scope))
