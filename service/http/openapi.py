"""The OpenAPI page: what FastAPI makes of the routes, with the keys that a server asks for."""

import asyncio
from collections.abc import Collection
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder

from service.http.body_schemas import classify_body, embed_body, form_body, header_parameters, json_body
from service.http.paths import DIALECTS
from service.http.routes.classify import LabelParameters
from service.http.routes.dialects import by_path
from service.http.routes.tokens import DetokenizeRequest, TokenizeRequest
from service.planning.workload import PlanRequest
from service.requests.parameters import HEADERS

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "X-API-Key: KEY"},
}


class OpenApiPage:
    """Made when it is first asked for, in a thread: that takes 30 ms."""

    def __init__(self, api: FastAPI, *, keyed: bool, open_paths: Collection[str]) -> None:
        """open_paths: those that take no key even if others do."""
        self._api, self._keyed, self._open_paths = api, keyed, open_paths
        self._making = asyncio.Lock()
        self._content = b""

    async def content(self) -> bytes:
        async with self._making:
            if not self._content:
                self._content = await asyncio.to_thread(self._make)
        return self._content

    def _make(self) -> bytes:
        page = self._api.openapi()
        # As FastAPI writes what it knows itself: without nulls.
        for path, body in jsonable_encoder(_bodies(), exclude_none=True).items():
            page["paths"][path]["post"] |= body
        return orjson.dumps(self._with_keys(page) if self._keyed else page)

    def _with_keys(self, page: dict[str, Any]) -> dict[str, Any]:
        page.setdefault("components", {})["securitySchemes"] = _SCHEMES
        page["security"] = [{name: []} for name in _SCHEMES]
        for path in self._open_paths & page["paths"].keys():
            for operation in page["paths"][path].values():
                operation["security"] = []
        return page


def _bodies() -> dict[str, dict[str, Any]]:
    """What each path that takes a body says of it. Not part of the routes: no start waits for schemas."""
    spoken = {
        path: (form_body if dialects[-1].takes == "form" else json_body)(*(each.model for each in dialects))
        | header_parameters({**dialects[-1].headers, **HEADERS})
        for path, dialects in by_path(DIALECTS).items()
    }
    return spoken | {
        "/embed": embed_body(),
        "/classify": classify_body(LabelParameters),
        "/plan": json_body(PlanRequest),
        "/tokenize": json_body(TokenizeRequest),
        "/detokenize": json_body(DetokenizeRequest),
    }
