"""How a request travels: the four forms that Packlight takes, as bytes made before the run. Texts travel in JSON.

A form turns a `Request` into a `Wire`: path and query, headers, body. `sending/answers` reads the answers.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlencode

from loadtest.errors import UsageError
from loadtest.traffic.corpus import Picture, Request
from loadtest.traffic.mix import Param

Form = Literal["multipart", "raw", "json", "openai"]
FORMS: tuple[Form, ...] = get_args(Form)
Answer = Literal["json", "base64", "npy"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
DEFAULT_PATHS: Mapping[Form, str] = {
    "multipart": "/embed",
    "raw": "/embed",
    "json": "/embed",
    "openai": "/v1/embeddings",
}
# The parameters that `/v1/embeddings` takes beside OpenAI's own fields.
OPENAI_PARAMS = ("max_pixels", "max_tokens", "priority")


@dataclass(frozen=True, slots=True)
class Wire:
    """One request, ready to send. `images` is how many images and texts it has."""

    target: str
    headers: Mapping[str, str]
    body: bytes
    images: int
    class_index: int


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to speak to a server. Some servers want a `file_field`, a `model`, `extra` fields or no parameters."""

    form: Form = "multipart"
    path: str | None = None
    file_field: str = "image"
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    params: bool = True
    answer: Answer = "json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form == "openai" and self.answer == "npy":
            raise UsageError("--form openai answers JSON: --answer is json or base64")
        if self.form != "openai" and self.answer == "base64" and not self.params:
            raise UsageError("--answer base64 is asked for by a parameter, and --no-params sends none")

    @property
    def route(self) -> str:
        return self.path or DEFAULT_PATHS[self.form]

    def wire(self, request: Request) -> Wire:
        """The bytes of one request."""
        encoders: dict[Form, Callable[[Request], tuple[str, bytes]]] = {
            "multipart": self._multipart,
            "raw": self._raw,
            "json": self._json,
            "openai": self._openai,
        }
        form = "json" if request.texts and self.form != "openai" else self.form
        content_type, body = encoders[form](request)
        target = self.route
        if form == "raw" and (params := self._params(request)):
            target += ("&" if "?" in target else "?") + urlencode(params)
        headers = {**self.headers, "Content-Type": content_type}
        if self.answer == "npy":
            headers["Accept"] = "application/x-npy"
        images = 1 if form == "raw" else len(request.pictures) + len(request.texts)
        return Wire(target, headers, body, images, request.class_index)

    def _params(self, request: Request) -> dict[str, Param]:
        params = dict(request.params) if self.params else {}
        if self.answer == "base64" and self.params and self.form != "openai":
            params["encoding"] = "base64"
        return params

    def _multipart(self, request: Request) -> tuple[str, bytes]:
        boundary = "packlight-" + hashlib.sha256(request.pictures[0].data).hexdigest()[:32]
        parts = [_field_part(name, str(value)) for name, value in {**self._params(request), **self.extra}.items()]
        parts += [_file_part(self.file_field, place, picture) for place, picture in enumerate(request.pictures)]
        mark = f"--{boundary}".encode()
        body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
        return f"multipart/form-data; boundary={boundary}", body

    def _raw(self, request: Request) -> tuple[str, bytes]:
        return request.pictures[0].media_type, request.pictures[0].data

    def _json(self, request: Request) -> tuple[str, bytes]:
        items: dict[str, Any] = {}
        if request.pictures:
            items["images"] = [base64.b64encode(picture.data).decode() for picture in request.pictures]
        if request.texts:
            items["texts"] = request.texts
        return _as_json({**items, **self._params(request), **self.extra})

    def _openai(self, request: Request) -> tuple[str, bytes]:
        content: dict[str, Any] = {
            "input": [*map(_data_uri, request.pictures), *request.texts],
            "encoding_format": "base64" if self.answer == "base64" else "float",
        }
        content |= {name: value for name, value in self._params(request).items() if name in OPENAI_PARAMS}
        if self.model:
            content["model"] = self.model
        return _as_json({**content, **self.extra})


def _as_json(content: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()


def _data_uri(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"


def _field_part(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def _file_part(name: str, place: int, picture: Picture) -> bytes:
    ending = picture.media_type.removeprefix("image/")
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{place}.{ending}"'
    return f"{disposition}\r\nContent-Type: {picture.media_type}\r\n\r\n".encode() + picture.data
