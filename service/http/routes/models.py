"""`GET /v1/models`: the served model, in OpenAI's shape with what vLLM adds."""

from fastapi import APIRouter, Request

from service.http import schemas
from service.http.dialects.dialect import Served


def models_router(served: Served) -> APIRouter:
    router = APIRouter()
    text = served.model.text
    card = schemas.OpenAIModel(
        id=served.model.name, root=served.model.name, max_model_len=text.context if text else None
    )

    @router.get("/v1/models", summary="The served model, in OpenAI's shape")
    async def models() -> schemas.OpenAIModels:
        return schemas.OpenAIModels(data=[card])

    @router.get("/models", summary="The served model, in infinity's shape")
    async def models_of_infinity() -> schemas.InfinityModels:
        return schemas.InfinityModels(data=[schemas.InfinityModel(id=served.model.name)])

    # A name may have slashes.
    @router.get(
        "/v1/models/{name:path}",
        responses={404: {"model": schemas.ErrorAnswer, "description": "`not_found`: the server has another model."}},
        openapi_extra={"parameters": [{"in": "path", "name": "name", "required": True, "schema": {"type": "string"}}]},
        summary="The served model by its name, in OpenAI's shape",
    )
    async def model(request: Request) -> schemas.OpenAIModel:
        served.check_name(request.path_params["name"])
        return card

    return router
