"""Parts of content as chat messages have them: a text, or an image by its URL. Several dialects share them."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.errors import BadRequest, Invalid, ServiceError
from service.http.dialects.dialect import Served
from service.requests.request import DocumentInput, ImageBounds, ImageInput, Input, TextInput

_URL_STARTS = ("http://", "https://")
# What `detail=low` leaves of the default cap. OpenAI gives no rule for encoders.
_LOW_DETAIL_SHARE = 4

# What stands before the comma of a data URI. A longer one is looked at with the image.
_HEAD = re.compile(r"\s*data:[^,#]*;\s*base64\s*", re.IGNORECASE)
_LONGEST_HEAD = 1024
# White space before a data URI is no part of it. As much is looked over.
_MOST_SPACE = 64

# How base64 of a JPEG, a PNG, a GIF and a WebP begins. Nobody writes a text so.
_PICTURE = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD[dl]|UklGR[a-zA-Z0-9+/]{6}XRUJQ)[a-zA-Z0-9+/]{16}")

_TEXT_TYPES = ("text", "input_text", None)
_IMAGE_TYPES = ("image_url", "input_image", None)

Detail = Literal["auto", "low", "high"]
Part = TypeVar("Part")


class ImageUrl(BaseModel):
    """An image and what it may become."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="A data URI, or a URL if the server fetches it.")
    detail: Detail | None = Field(
        None, description="low: a quarter of the default cap. high: the server's max_image_tokens. auto: the default."
    )
    max_pixels: int | None = None
    min_pixels: int | None = None
    max_tokens: int | None = None


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(
        None, description="text or input_text, image_url or input_image. May be left out where the other key tells."
    )
    text: str | None = None
    image_url: Annotated[ImageUrl | str | None, Field(union_mode="left_to_right")] = None
    detail: Detail | None = Field(None, description="As in image_url, for an input_image.")
    max_pixels: int | None = None
    min_pixels: int | None = None
    max_tokens: int | None = None
    uuid: str | None = Field(None, description="vLLM's name of an image in its cache. Changes nothing.")


def input_of(
    part: ContentPart, served: Served, param: str, index: int | None, *, max_tokens: int | None = None
) -> Input:
    """The image or the text of a part. max_tokens: of the request, which `detail` does not raise. Raises `Invalid`."""
    if part.type in _TEXT_TYPES and part.text is not None and part.image_url is None:
        return TextInput(part.text, param, index)
    if part.type in _IMAGE_TYPES and part.image_url is not None and part.text is None:
        image = part.image_url if isinstance(part.image_url, ImageUrl) else ImageUrl(url=part.image_url)
        return image_input(image.url, served, param, index, _bounds(part, image, served, max_tokens))
    raise Invalid(
        f'an input of type {(part.type or "")[:40]!r}: a text is {{"type": "text", "text": …}}, an image '
        '{"type": "image_url", "image_url": {"url": …}}',
        param=param,
        index=index,
    )


def image_input(
    encoded: str, served: Served, param: str, index: int | None, bounds: ImageBounds | None = None
) -> ImageInput:
    """Raises `Invalid` for a URL if the server fetches none."""
    if not served.fetches_urls and _is_url(encoded):
        raise Invalid(
            "images are not fetched from URLs here (url_allowlist, allow_urls); send a data URI",
            param=param,
            index=index,
        )
    return ImageInput(encoded, param, index, bounds)


def string_input(
    given: str, served: Served, param: str, index: int | None, *, text_form: str = '{"type": "text", "text": "…"}'
) -> Input:
    """A string that may be either: an image if it begins like a data URI or a URL.

    text_form: how a text is sent that begins so. Raises `Invalid` for what begins so and cannot be an image here, and
    for bare base64 of an image: a model of texts would give the vector of its letters.
    """
    if _PICTURE.match(given):
        raise Invalid(
            "this is an image in base64, and would be read as a text; send it as a data URI, data:image/…;base64,…. "
            f"If it is a text, it is sent as {text_form}",
            param=param,
            index=index,
        )
    if not is_image(given):
        return TextInput(given, param, index)
    try:
        head, comma, _ = given[:_LONGEST_HEAD].partition(",")
        if not _is_url(given) and (comma or head == given) and not _HEAD.fullmatch(head):
            raise BadRequest("a data URI has ;base64 before a comma", param=param, index=index)
        if _is_url(given) and given.strip().count(" ", 0, _LONGEST_HEAD):
            raise Invalid("a URL has no spaces", param=param, index=index)
        return image_input(given, served, param, index)
    except ServiceError as refusal:
        refusal.message += f". A text that begins like a data URI or a URL is sent as {text_form}"
        raise


def _bounds(part: ContentPart, image: ImageUrl, served: Served, max_tokens: int | None) -> ImageBounds:
    """Those of the URL or of the part, with the cap that `detail` stands for. Raises `Invalid` for one given twice."""
    for name in ("max_pixels", "min_pixels", "max_tokens", "detail"):
        if getattr(part, name) is not None and getattr(image, name) is not None:
            raise Invalid(f"{name} is given more than once, in the part and in its image_url", param=name)
    own_tokens = image.max_tokens if part.max_tokens is None else part.max_tokens
    if detail_tokens := _detail_tokens(image.detail or part.detail, served):
        others = own_tokens if own_tokens is not None else max_tokens
        own_tokens = detail_tokens if others is None else min(detail_tokens, others)
    return ImageBounds(
        max_tokens=own_tokens,
        max_pixels=image.max_pixels if part.max_pixels is None else part.max_pixels,
        min_pixels=image.min_pixels if part.min_pixels is None else part.min_pixels,
    )


def _detail_tokens(detail: Detail | None, served: Served) -> int | None:
    """A model of one grid gives every image the same tokens, whatever the detail."""
    if detail in (None, "auto") or served.model.geometry.fixed:
        return None
    limits = served.limits
    return limits.max_image_tokens if detail == "high" else max(1, limits.default_max_tokens // _LOW_DETAIL_SHARE)


def is_image(given: str) -> bool:
    """Whether a string stands for an image. Looks at its first letters only: uploads are long."""
    return _beginning(given).startswith("data:") or _is_url(given)


def _is_url(given: str) -> bool:
    return _beginning(given).startswith(_URL_STARTS)


def _beginning(given: str) -> str:
    return given[:_MOST_SPACE].lstrip()[:8].lower()


def fused(content: Sequence[Part], index: int, served: Served, read: Callable[[Part], Input]) -> Input:
    """An input of the parts of a content, each of which `read` reads. Raises `Invalid` for none, and for several if the
    model makes no vector of those."""
    if len(content) > 1 and served.fuses:
        parts = [read(part) for part in content]
        return DocumentInput([part for part in parts if not isinstance(part, DocumentInput)], "inputs", index)
    return read(_sole_part(content, index))


def _sole_part(content: Sequence[Part], index: int) -> Part:
    """Raises `Invalid` for none or several."""
    if not content:
        raise Invalid("content has no parts; send an image or a text", param="inputs", index=index)
    if len(content) > 1:
        raise Invalid(
            f"content has {len(content)} parts. The model makes a vector of one image or one text and cannot fuse "
            "several: send each part as an input of its own",
            param="inputs",
            index=index,
        )
    return content[0]
