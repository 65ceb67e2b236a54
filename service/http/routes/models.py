"""`GET /v1/models`: the served model, in OpenAI's shape."""

from fastapi import APIRouter, Request

from service.http import schemas
from service.http.dialects.dialect import Served


def models_router(served: Served) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/models", summary="The served model, in OpenAI's shape")
    async def models() -> schemas.OpenAIModels:
        return schemas.OpenAIModels(data=[schemas.OpenAIModel(id=served.model.name)])

    # A name may have slashes.
    @router.get(
        "/models/{name:path}",
        responses={404: {"model": schemas.ErrorAnswer, "description": "`not_found`: the server has another model."}},
        openapi_extra={"parameters": [{"in": "path", "name": "name", "required": True, "schema": {"type": "string"}}]},
        summary="The served model by its name, in OpenAI's shape",
    )
    async def model(request: Request) -> schemas.OpenAIModel:
        served.check_name(request.path_params["name"])
        return schemas.OpenAIModel(id=served.model.name)

    return router
