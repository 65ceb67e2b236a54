"""Builds the application: FastAPI behind the layers that every request passes.

DiscardUnread → Observe → CORS, if it is set → Gate → a route that embeds, or HEAD as GET → FastAPI → a route
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import fastapi.dependencies.models
from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.client import EngineClient
from service.errors import BadRequest, ClientGone, MethodNotAllowed, NotFound, ServiceError, unknown_error
from service.fetching.allowlist import Allowed
from service.http import schemas
from service.http.bodies.receive import BodyLimits
from service.http.context import RequestContext
from service.http.dialects.dialect import Served
from service.http.dialects.embeddings import WARNING_HEADER
from service.http.forecast import Forecast
from service.http.gate import Gate
from service.http.keys import open_paths
from service.http.observe import Observe
from service.http.openapi import OpenApiPage
from service.http.paths import DIALECTS, DIALECTS_BY_PATH, EMBEDDING_PATHS, PATHS, meant_by
from service.http.responses import CACHED_HEADER, PACKS_HEADER, client_gone_response, error_response
from service.http.routes.classify import classify_router
from service.http.routes.dialects import dialects_router
from service.http.routes.direct import Direct
from service.http.routes.docs import docs_router
from service.http.routes.embed import embed_router
from service.http.routes.embedding import EmbeddingRoute
from service.http.routes.health import health_router
from service.http.routes.models import models_router
from service.http.routes.operations import VERSION, operations_router
from service.http.routes.pages import pages_router
from service.http.routes.plan import plan_router
from service.http.routes.stats import stats_router
from service.http.routes.tokens import tokens_router
from service.http.routes.weaviate import weaviate_router
from service.http.stats.feed import StatsFeed
from service.http.stats.reader import StatsReader
from service.http.unread import DiscardUnread
from service.limits import Limits
from service.metrics import Metrics
from service.planning.choice import ServedModel
from service.priority import PRIORITY_HEADER
from service.requests.admission.admission import Admission
from service.requests.cache.lookups import Lookups
from service.requests.cache.pictures import SeenPictures
from service.requests.decoder import Decoder
from service.requests.embedder import Embedder
from service.requests.text_reader import TextReader
from service.requests.url_images import UrlImages
from service.settings.settings import Settings
from service.tracing import current
from service.tracing.stages import TracedClient

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

# The listeners of /stats in one HTTP process.
_MAX_LISTENERS = 128
# Headers of an answer that a page's script may read.
_EXPOSED_HEADERS = (
    "Retry-After",
    "X-Request-ID",
    "Server-Timing",
    PACKS_HEADER,
    CACHED_HEADER,
    "X-Image-Tokens",
    "X-Image-Repaired",
    "X-Image-Cached",
    "X-Fingerprint",
    "X-Text-Fingerprint",
    WARNING_HEADER,
    PRIORITY_HEADER,
    # An answer in encoding_format=bytes has it.
    "metadata",
)


def create_app(
    settings: Settings,
    client: EngineClient,
    decoder: Decoder,
    metrics: Metrics,
    *,
    text_reader: TextReader | None = None,
    url_images: UrlImages | None = None,
    draining: Callable[[], bool] = lambda: False,
    tracing: "Tracing | None" = None,
) -> ASGIApp:
    """The server as one ASGI application. text_reader: of a model that takes text. url_images: by default those that
    the settings allow. tracing: None if requests are not traced.

    Raises `SettingsError` for limits that do not fit the model.
    """
    limits = Limits.of(settings, client.model)
    admission = Admission(
        limits,
        max_inflight_bytes=settings.max_inflight_bytes,
        upload_timeout_s=settings.upload_timeout_ms / 1000,
        client=client,
        metrics=metrics,
    )
    metrics.set_build_info(client.model, VERSION)
    api = _api()
    url_images = url_images or UrlImages.of(settings, metrics, trace_headers=current.outgoing.get)
    pictures = SeenPictures.of(settings, client, metrics)
    embedder = Embedder(
        client=TracedClient(client) if tracing else client, decoder=decoder, limits=limits, metrics=metrics,
        text_reader=text_reader, url_images=url_images, pictures=pictures,
    )  # fmt: skip
    spoken_of = Served(
        client.model, limits, settings.decode, settings.model_aliases, fetches_urls=url_images.allowed != "off"
    )
    embedding = _include_routes(api, settings, client, embedder, spoken_of, url_images, text_reader)
    _include_watching(api, settings, client, spoken_of, metrics, url_images.allowed, draining)
    app: ASGIApp = Gate(
        Direct(_head_as_get(api), embedding), settings, guarded_paths=EMBEDDING_PATHS, admission=admission,
        forecast=Forecast(client.model.geometry, limits), client=client, draining=draining,
        lookups=Lookups(pictures.knows_any, max_inflight_bytes=settings.max_inflight_bytes) if pictures else None,
    )  # fmt: skip
    return DiscardUnread(Observe(
        _with_cors(app, settings.cors_origins), routes=PATHS, embedding=EMBEDDING_PATHS, dialects=DIALECTS_BY_PATH,
        admission=admission, metrics=metrics, model=client.model.name, tracing=tracing,
    ))  # fmt: skip


def forget_apps() -> None:
    """Has FastAPI forget what it knows of routes, which are those of applications that are served no more, too.

    It remembers thousands of functions for as long as the process lives. A route's function has the engine's client,
    and so a model, or the memory of its rows."""
    for each in vars(fastapi.dependencies.models).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


def _api() -> FastAPI:
    """Without routes; every error is answered in our shape."""
    api = FastAPI(
        title="Packlight",
        version=VERSION,
        description="Embeds images at any resolution without padding and, if the model has a text tower, texts into "
        "the same space. HEAD is answered wherever GET is.",
        redirect_slashes=False,
        # Its own pages load scripts from another host.
        openapi_url=None,
    )
    api.add_exception_handler(ServiceError, _answer_service_error)
    api.add_exception_handler(ClientGone, _answer_client_gone)
    api.add_exception_handler(Exception, _answer_unknown)
    api.add_exception_handler(HTTPException, _answer_http_exception)
    return api


def _include_routes(
    api: FastAPI,
    settings: Settings,
    client: EngineClient,
    embedder: Embedder,
    spoken_of: Served,
    url_images: UrlImages,
    text_reader: TextReader | None,
) -> list[APIRouter]:
    """The routes that take bodies. Gives back those that embed."""
    upload_timeout_s = settings.upload_timeout_ms / 1000
    route = EmbeddingRoute(
        embedder,
        client.model,
        url_images=url_images,
        body_limits=BodyLimits(
            max_upload_bytes=settings.max_upload_bytes,
            max_held_bytes=settings.max_inflight_bytes,
            max_images=settings.max_images_per_request,
            max_texts=settings.max_texts_per_request,
            timeout_s=upload_timeout_s,
            max_text_chars=settings.max_text_chars,
            hash_images=settings.remembers,
        ),
        default_timeout_s=settings.default_timeout_ms / 1000,
        default_decode=settings.decode,
    )
    embedding = [
        embed_router(route),
        classify_router(route, client, max_text_chars=settings.max_text_chars),
        dialects_router(route, spoken_of, DIALECTS),
    ]
    for router in embedding:
        api.include_router(router)
    api.include_router(models_router(spoken_of))
    api.include_router(tokens_router(spoken_of, text_reader, route.body_limits))
    served = ServedModel(client.model.name, client.model.geometry, spoken_of.limits, settings.max_decode_pixels)
    api.include_router(plan_router(client, served, upload_timeout_s=upload_timeout_s))
    return embedding


def _include_watching(
    api: FastAPI,
    settings: Settings,
    client: EngineClient,
    spoken_of: Served,
    metrics: Metrics,
    image_urls: Allowed,
    draining: Callable[[], bool],
) -> None:
    """The routes that tell how the server is doing, and its page."""
    limits = spoken_of.limits
    operations = operations_router(
        client,
        limits,
        metrics,
        decode=settings.decode,
        image_urls=image_urls,
        dialects=[dialect.described(spoken_of) for dialect in DIALECTS],
    )
    api.include_router(operations, responses=schemas.common_responses())
    api.include_router(health_router(client, draining=draining), responses=schemas.common_responses())
    api.include_router(weaviate_router(client, draining=draining), responses=schemas.common_responses())
    api.include_router(pages_router())
    openapi = OpenApiPage(api, keyed=settings.keyed, open_paths=open_paths(settings))
    api.include_router(docs_router(openapi))
    if settings.stats == "on":
        feed = StatsFeed(
            StatsReader(client, limits, metrics, settings),
            # Listeners leave connections to others.
            max_listeners=min(_MAX_LISTENERS, settings.max_connections // 2),
            draining=draining,
        )
        api.include_router(stats_router(feed, draining=draining), responses=schemas.common_responses())


def _with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Outside the gate: a browser's preflight brings no key, and its scripts must be able to read refusals. Without
    origins the application itself."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=_EXPOSED_HEADERS,
    )


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """Routes HEAD as GET. The connection knows the method that was sent, and sends no body."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return routed


async def _answer_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return error_response(error, RequestContext.of(request.scope))


async def _answer_client_gone(request: Request, error: Exception) -> Response:
    return client_gone_response(error, RequestContext.of(request.scope))


async def _answer_unknown(request: Request, error: Exception) -> Response:
    """`Observe` logs the exception."""
    return error_response(unknown_error(), RequestContext.of(request.scope))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answers what the framework refuses, in our shape."""
    assert isinstance(error, HTTPException)
    path, allowed = request.scope["path"], (error.headers or {}).get("Allow", "")
    shaped = {404: _no_such(path), 405: _other_method(path, request.method, allowed)}
    refusal = shaped.get(error.status_code) or BadRequest("this path does not take such a request")
    answer = error_response(refusal, RequestContext.of(request.scope))
    if allowed:
        methods = set(allowed.split(", "))
        answer.headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    return answer


def _no_such(path: str) -> NotFound:
    meant = meant_by(path)
    return NotFound(f"no such path; did you mean {meant}?" if meant else "no such path; /docs lists those there are")


def _other_method(path: str, method: str, allowed: str) -> MethodNotAllowed:
    takes = f"; it takes {allowed}" if allowed else ""
    example = ", as curl -F image=@FILE sends it" if path == "/embed" else ""
    return MethodNotAllowed(f"this path does not take {method}{takes}{example}")
