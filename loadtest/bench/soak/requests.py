"""The requests of a soak: each in one of the forms that the server takes, new to its memory or as before.

A stamp changes a picture's bytes and none of its pixels, so the vector stays: a comment of a JPEG or PNG. Pictures of
other formats are sent as they are.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loadtest.bench.overload import truncated
from loadtest.traffic.bodies import Adapter, Wire
from loadtest.traffic.corpus import Picture, Request

# In turn. The third asks for floats; texts go as JSON whatever the form.
_ADAPTERS = (
    Adapter("multipart", answer="base64"),
    Adapter("raw", answer="npy"),
    Adapter("json"),
    Adapter("openai", answer="base64"),
    Adapter("json", answer="base64"),
)
_JPEG_START, _PNG_HEADER_BYTES = 2, 33


@dataclass(frozen=True, slots=True)
class Template:
    """One distinct request. by_url: where the server fetches its pictures; they travel in the body without."""

    place: int
    request: Request
    adapter: Adapter
    by_url: str | None = None

    @property
    def form(self) -> str:
        return "url" if self.by_url else self.adapter.form

    def wire(self, stamp: str = "") -> Wire:
        """stamp: makes its pictures new to the server."""
        if self.by_url:
            return self._by_url(self.by_url, stamp)
        return self.adapter.wire(_stamped(self.request, stamp))

    def _by_url(self, host: str, stamp: str) -> Wire:
        urls = [f"{host}/{self.place}/{number}?stamp={stamp}" for number in range(len(self.request.pictures))]
        body = json.dumps({"images": urls, "encoding": "base64", **self.request.params}).encode()
        return Wire("/embed", {"Content-Type": "application/json"}, body, len(urls), self.request.class_index)

    def picture(self, number: int, stamp: str) -> Picture:
        return stamped(self.request.pictures[number], stamp)

    def broken(self) -> Wire:
        """Its first picture, cut off."""
        return Adapter("raw").wire(truncated(self.request))


def templates_of(requests: Sequence[Request], *, picture_host: str) -> list[Template]:
    """Forms take turns: one in six requests names URLs."""
    made = []
    for place, request in enumerate(requests):
        turn = place % (len(_ADAPTERS) + 1)
        if turn == len(_ADAPTERS) and not request.texts:
            made.append(Template(place, request, Adapter("json", answer="base64"), by_url=picture_host))
        else:
            adapter = _ADAPTERS[turn % len(_ADAPTERS)]
            # A raw body is one picture.
            alone = adapter.form == "raw" and (len(request.pictures) != 1 or request.texts)
            made.append(Template(place, request, _ADAPTERS[0] if alone else adapter))
    return made


def _stamped(request: Request, stamp: str) -> Request:
    return replace(request, pictures=tuple(stamped(each, stamp) for each in request.pictures)) if stamp else request


def stamped(picture: Picture, stamp: str) -> Picture:
    """The picture with a comment."""
    words = stamp.encode()
    if not stamp:
        return picture
    if picture.media_type == "image/jpeg":
        comment = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words
        return replace(picture, data=picture.data[:_JPEG_START] + comment + picture.data[_JPEG_START:])
    if picture.media_type == "image/png":
        content = b"tEXtComment\0" + words
        chunk = len(content[4:]).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
        return replace(picture, data=picture.data[:_PNG_HEADER_BYTES] + chunk + picture.data[_PNG_HEADER_BYTES:])
    return picture


def digest(body: bytes, content_type: str) -> str:
    """Names the vectors of an answer, and what was charged for them. Raises `ValueError` if there are none."""
    if content_type.startswith("application/json"):
        content = json.loads(body)
        if not isinstance(content, Mapping) or not content.get("data"):
            raise ValueError("an answer without vectors")
        seen = [[item["embedding"], item.get("tokens"), item.get("grid")] for item in content["data"]]
        body = json.dumps(seen).encode()
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
