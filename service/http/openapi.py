"""The OpenAPI page: what FastAPI makes of the routes, with the keys that a server asks for."""

import asyncio
from collections.abc import Collection
from typing import Any

import orjson
from fastapi import FastAPI

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
        return orjson.dumps(self._with_keys(page) if self._keyed else page)

    def _with_keys(self, page: dict[str, Any]) -> dict[str, Any]:
        page.setdefault("components", {})["securitySchemes"] = _SCHEMES
        page["security"] = [{name: []} for name in _SCHEMES]
        for path in self._open_paths & page["paths"].keys():
            for operation in page["paths"][path].values():
                operation["security"] = []
        return page
