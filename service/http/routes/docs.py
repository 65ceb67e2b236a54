"""`GET /docs` and `/openapi.json`: every route, to read and to try, without the internet."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from service.errors import NotFound
from service.http.openapi import OpenApiPage
from service.http.routes.pages import PAGE_HEADERS

# Our files change with a release. Swagger UI's are large and rarely change.
_OF_THE_PACKAGE: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_PACKAGE_CACHE: Final = {"Cache-Control": "max-age=3600"}


def docs_router(openapi: OpenApiPage) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    ours = files("service.http.swagger")
    page, start = ours.joinpath("index.html").read_bytes(), ours.joinpath("start.js").read_bytes()

    @router.get("/openapi.json")
    async def openapi_json() -> Response:
        return Response(await openapi.content(), media_type="application/json")

    @router.get("/docs")
    async def docs() -> Response:
        return Response(page, headers=PAGE_HEADERS, media_type="text/html; charset=utf-8")

    @router.get("/docs/start.js")
    async def start_js() -> Response:
        return Response(start, headers=PAGE_HEADERS, media_type="text/javascript; charset=utf-8")

    @router.get("/docs/{name}")
    async def file(name: str) -> Response:
        if name not in _OF_THE_PACKAGE:
            raise NotFound("the documentation has no such file")
        path = _package_folder() / name
        return FileResponse(path, media_type=_OF_THE_PACKAGE[name], headers=PAGE_HEADERS | _PACKAGE_CACHE)

    return router


def _package_folder() -> Path:
    """Where Swagger UI lies. The package is not imported: it is an application of its own."""
    spec = find_spec("fastapi_offline")
    assert spec is not None, "fastapi-offline is not installed, and Packlight requires it"
    return Path(str(spec.origin)).parent / "static"
