"""Reads a body that brings images: `multipart/form-data`, a raw `image/*` body, or base64 in JSON.

Nothing here looks into an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from starlette.requests import Request

from service.errors import Invalid, UnsupportedMedia
from service.http.bodies.base64_images import keep_images
from service.http.bodies.documents import read_documents
from service.http.bodies.form import Form, check_count, read_content_type
from service.http.bodies.json_object import read_json
from service.http.bodies.receive import BodyLimits, check_text_count, receive
from service.requests.admission.hold import Hold
from service.requests.cache.digests import HashedBytes
from service.requests.documents.rows import texts_alone
from service.requests.url_images import UrlImages

_FORMS = (
    "multipart/form-data with parts named image, a raw body with an image/* type, or application/json with images, "
    "texts or both"
)

# Fields of a JSON object that an error names.
_MOST_NAMED = 5


@dataclass(slots=True)
class BodyParameters:
    """The parameters of a body. fields: a form's, in order. json: those of a JSON object."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


async def read_body(request: Request, hold: Hold, limits: BodyLimits, url_images: UrlImages) -> BodyParameters:
    """Reads a body of any of the three kinds. Afterwards `hold` has its images, URLs and texts, and is charged for
    nothing else.

    Raises `ServiceError`, and `ClientGone` if the client leaves.
    """
    kind, boundary = read_content_type(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        form = Form(boundary, max_images=limits.max_images, hash_images=limits.hash_images)
        await receive(request, hold, limits, form.write)
        form.close()
        hold.keep(form.images, digests=form.digests)
        hold.image_fields = form.names
        return BodyParameters(fields=form.fields)
    if kind in (b"application/json", b"text/json") or kind.endswith(b"+json"):
        content = await read_json(request, hold, limits)
        if (inputs := content.pop("inputs", None)) is not None:
            await _keep_inputs(inputs, content, hold, limits, url_images)
            return BodyParameters(json=content)
        texts = _pop_texts(content, limits)
        param, encoded = _pop_images(content, optional=texts is not None)
        if not encoded and not texts:
            raise Invalid("the request has no image and no text", param=param)
        check_count(len(encoded), limits.max_images, param)
        await keep_images(hold, encoded, param, texts or [], url_images=url_images)
        return BodyParameters(json=content)
    if kind.startswith(b"image/") or kind in (b"application/octet-stream", b"binary/octet-stream"):
        data = HashedBytes() if limits.hash_images else BytesIO()
        await receive(request, hold, limits, data.write)
        # `getvalue()` of an unshared BytesIO returns its buffer without copying.
        hold.keep([data.getvalue()], digests=[data.digest()] if isinstance(data, HashedBytes) else ())
        return BodyParameters()
    named = f"Content-Type is {kind[:100].decode('latin-1')!r}" if kind else "there is no Content-Type"
    if kind == b"application/x-www-form-urlencoded":
        named += " (curl's, unless -H names another)"
    raise UnsupportedMedia(f"{named}; send {_FORMS}")


async def _keep_inputs(
    inputs: Any, content: dict[str, Any], hold: Hold, limits: BodyLimits, url_images: UrlImages
) -> None:
    """Gives `hold` the documents of a JSON object that has them in place of images and texts."""
    if beside := [name for name in ("images", "image", "texts") if name in content]:
        raise Invalid(f"the JSON has both inputs and {beside[0]}; every vector has a place in inputs", param=beside[0])
    documents, encoded = read_documents(inputs)
    check_count(len(encoded), limits.max_images, "inputs")
    check_text_count(texts_alone(documents), limits)
    await keep_images(hold, encoded, "inputs", url_images=url_images, documents=documents)


def _pop_images(content: dict[str, Any], *, optional: bool) -> tuple[str, list[Any]]:
    """Takes `images` or `image` out of a JSON object: its name, and a list. Raises `Invalid`."""
    many, one = content.pop("images", None), content.pop("image", None)
    if many is not None and one is not None:
        raise Invalid("the JSON has both images and image; send one of them", param="image")
    if isinstance(one, list):
        raise Invalid("image is one image; a list of them is named images", param="image")
    if one is not None:
        return "image", [one]
    if many is None and optional:
        return "images", []
    if many is None:
        raise Invalid(
            f"the JSON has no images and no texts{_only(content)}; a single image is named image, and texts is a list",
            param="images",
        )
    if not isinstance(many, list):
        raise Invalid("images is a list of base64 strings or data URIs; a single one is named image", param="images")
    return "images", many


def _only(content: Mapping[str, Any]) -> str:
    """Names of the fields that a JSON object has, as a clause: often one that is meant for an image or a text."""
    names = ", ".join(name[:40] for name in list(content)[:_MOST_NAMED])
    return f", only {names}" if names else ""


def _pop_texts(content: dict[str, Any], limits: BodyLimits) -> list[str] | None:
    """The texts of a JSON object, which are taken out of it; None if it has none."""
    texts = content.pop("texts", None)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Invalid('texts is a list of strings, such as ["a red bicycle"]', param="texts")
    check_text_count(len(texts), limits)
    return texts
