"""Whether the server is alive and ready, by our names and by those that others' machines and clients ask for."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.engine.client import EngineClient
from service.errors import Unavailable
from service.http import schemas


def health_router(client: EngineClient, *, draining: Callable[[], bool]) -> APIRouter:
    router = APIRouter()

    def unready() -> str | None:
        """Why the server is not ready; None if it is."""
        if draining():
            return "draining"
        if client.any_device_ready:
            return None
        untrue = client.trust.untrue
        return "engine not ready" if untrue is None else f"the device gives wrong vectors: {untrue}"

    @router.get(
        "/livez",
        summary="200 while the process answers",
        # `Liveness` answers it, outside of the application.
        responses={503: schemas.status_answer("the thread decode_0 has ended")},
    )
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="200 only while the device has answered lately and the server is not shutting down",
        responses={200: schemas.status_answer("ready"), 503: schemas.status_answer("engine not ready")},
    )
    async def readyz() -> Response:
        why = unready()
        return JSONResponse({"status": why or "ready"}, 503 if why else 200)

    @router.get(
        "/health",
        summary="As /readyz, for clients of vLLM and infinity",
        # infinity's client reads JSON here, and vLLM's only the status.
        responses={200: {"description": "`{}`"}},
    )
    async def health() -> dict[str, float]:
        if why := unready():
            raise Unavailable(f"the server is not ready: {why}")
        return {}

    _add_ping(router)
    return router


def _add_ping(router: APIRouter) -> None:
    async def ping() -> PlainTextResponse:
        return PlainTextResponse("pong")

    # The route that answers has both methods, so that Allow names them. A page needs a name for each.
    router.add_api_route("/ping", ping, methods=["GET", "POST"], include_in_schema=False)
    for method in ("GET", "POST"):
        router.add_api_route(
            "/ping",
            ping,
            methods=[method],
            name=f"ping {method}",
            response_class=PlainTextResponse,
            summary="As /livez, with the text pong",
        )
