"""`POST /predict`, as Immich's server asks its machine learning service for smart search.

A form with one image or one text; its field `entries` says what to do with it, as JSON. The model that it names is the
one that Immich is set to, and is not asked for: the served model answers for any.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadRequest, Invalid, ServiceError, from_validation_error
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked, placed
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, ImageInput, TextInput
from service.requests.results import EmbeddedImage, EmbeddedItem

# Parts of the path of `clip.textual.options.language`.
_DEEPEST = 4
_TASKS = {"facial-recognition": "Facial Recognition", "ocr": "OCR"}


class ImmichForm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    entries: str = Field(
        description='JSON: `{"clip": {"visual": {"modelName": "…"}}}` for the image, '
        '`{"clip": {"textual": {"modelName": "…", "options": {"language": "en"}}}}` for the text.'
    )
    text: str | None = Field(None, description="The text, if entries asks for clip.textual.")


class ImmichOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    language: str | None = None


class ImmichModel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    modelName: str
    options: ImmichOptions | None = None


class ImmichClip(BaseModel):
    model_config = ConfigDict(extra="forbid")

    visual: ImmichModel | None = None
    textual: ImmichModel | None = None


class ImmichEntries(BaseModel):
    model_config = ConfigDict(extra="forbid")

    clip: ImmichClip


class ImmichAnswer(BaseModel):
    """As Immich reads it: the vector is a text, which goes into its database as it is."""

    clip: str
    imageHeight: int | None = Field(None, description="The height of an image, upright.")
    imageWidth: int | None = None


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    form = checked(ImmichForm, body.content)
    clip = _entries(form.entries).clip
    if (clip.visual is None) == (clip.textual is None):
        raise Invalid("entries asks for one of clip.visual and clip.textual", param="entries")
    wants_image, images = clip.visual is not None, body.form_images
    if wants_image and (images != 1 or form.text is not None):
        raise Invalid("clip.visual takes one part named image, and no text", param="image")
    if not wants_image and (images or form.text is None):
        raise Invalid("clip.textual takes a part named text, and no image", param="text")
    given = TextInput(form.text, "text") if form.text is not None else ImageInput(None, "image")
    return Asked(EmbedRequest([given], EmbedParameters(decode=served.decode)), _answer)


def error(fault: ServiceError) -> dict[str, Any]:
    return {"detail": placed(fault)}


IMMICH = Dialect(
    name="immich",
    paths=("/predict",),
    model=ImmichForm,
    read=read,
    error=error,
    answer=ImmichAnswer,
    summary="Embed an image or a text, as Immich asks its machine learning service",
    takes="form",
    any_model=True,
)


def _entries(given: str) -> ImmichEntries:
    try:
        entries = orjson.loads(given)
    except orjson.JSONDecodeError as fault:
        raise BadRequest(f"entries is not JSON: {fault}", param="entries") from None
    if not isinstance(entries, dict):
        raise Invalid("entries is a JSON object", param="entries")
    for task, title in _TASKS.items():
        if task in entries:
            raise Invalid(
                f"{task} is not offered, only clip; turn {title} off in Immich's machine learning settings",
                param="entries",
            )
    try:
        return ImmichEntries.model_validate(entries, strict=True)
    except ValidationError as fault:
        refusal = from_validation_error(fault, ImmichEntries, depth=_DEEPEST)
        raise Invalid(f"entries: {refusal.message}", param="entries") from None


def _answer(embedded: Sequence[EmbeddedItem]) -> dict[str, Any]:
    (item,) = embedded
    answer: dict[str, Any] = {
        "clip": orjson.dumps(item.embedding(normalize=True), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    }
    if isinstance(item, EmbeddedImage):
        answer["imageHeight"], answer["imageWidth"] = item.plan.size
    return answer
