"""What Weaviate's module asks beside `POST /vectorize`: is the service there, and what does it serve."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service.engine.client import EngineClient


def weaviate_router(client: EngineClient, *, draining: Callable[[], bool]) -> APIRouter:
    router = APIRouter()

    @router.get("/.well-known/live", status_code=204, summary="204 while the process answers, for Weaviate")
    async def live() -> Response:
        return Response(status_code=204)

    @router.get(
        "/.well-known/ready",
        status_code=204,
        responses={503: {"description": "The engine is not ready, or the server is shutting down."}},
        summary="As /readyz, with 204 in place of 200, for Weaviate",
    )
    async def ready() -> Response:
        return Response(status_code=503 if draining() or not client.any_device_ready else 204)

    @router.get("/meta", summary="The served model, for Weaviate")
    async def meta() -> dict[str, Any]:
        return client.model.described()

    return router
