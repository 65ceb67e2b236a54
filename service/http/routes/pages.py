"""`GET /` and `GET /pages/{file}`: the page that shows what the server does, and the files it is made of.

All files are read once, at the start. A request names one of them or gets a 404: no path of the file system is ever
made from what a client sends.
"""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath
from typing import Final, Self

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import NotFound

_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
# Everything comes from this server, and nothing runs that is not a file of it. Pictures of the user are blobs, and
# Swagger UI draws its symbols as data: URIs.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept by the browser, and asked about each time: a new release is seen at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        return cls(content, _MEDIA_TYPES[PurePath(name).suffix], f'"{sha256(content).hexdigest()[:16]}"')

    def answer(self, request: Request) -> Response:
        headers = PAGE_HEADERS | {"ETag": self.etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def pages_router() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    served = _read_files()
    index = served.pop("index.html")

    @router.get("/")
    async def page(request: Request) -> Response:
        return index.answer(request)

    @router.get("/pages/{name}")
    async def file(name: str, request: Request) -> Response:
        if name not in served:
            raise NotFound("the page has no such file")
        return served[name].answer(request)

    return router


def _read_files() -> dict[str, _File]:
    """The files of `service/http/pages` by their names."""
    return {
        file.name: _File.of(file.name, file.read_bytes())
        for file in files("service.http.pages").iterdir()
        if PurePath(file.name).suffix in _MEDIA_TYPES
    }
