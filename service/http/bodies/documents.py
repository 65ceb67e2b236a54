"""The `inputs` of a JSON body: lists of parts, each a text or an image, that become one vector."""

from typing import Any

from service.errors import Invalid
from service.requests.documents.rows import Document

_FORM = 'an input is a list of parts, each {"text": "…"} or {"image": "<base64, data URI or URL>"}'
_NOT_TAKEN = {
    "audio": "the model is served without its audio tower; texts and images are taken",
    "video": "videos are not taken; send their frames as images",
}


# What TEI's clients send under this name.
_STRINGS = "; texts that have a vector each are sent as texts"


def read_documents(inputs: Any) -> tuple[list[Document], list[Any]]:
    """The documents, and their images in order, as they came. Raises `Invalid`."""
    if not isinstance(inputs, list) or not inputs:
        raise Invalid(f"inputs is a list; {_FORM}{_hint(inputs)}", param="inputs")
    documents: list[Document] = []
    images: list[Any] = []
    for index, given in enumerate(inputs):
        if not isinstance(given, list) or not given:
            raise Invalid(f"{_FORM}{_hint(given)}", param="inputs", index=index)
        document: list[int | str] = []
        for part in given:
            name, value = _part(part, index)
            if name == "text":
                document.append(value)
            else:
                document.append(len(images))
                images.append(value)
        documents.append(tuple(document))
    return documents, images


def _hint(given: Any) -> str:
    return _STRINGS if isinstance(given, str) else ""


def _part(part: Any, index: int) -> tuple[str, Any]:
    if isinstance(part, dict) and len(part) == 1:
        ((name, value),) = part.items()
        if name in ("text", "image") and isinstance(value, str):
            return name, value
        for kind, why in _NOT_TAKEN.items():
            if kind in name:
                raise Invalid(f"a part is {name[:40]!r}: {why}", param="inputs", index=index)
    raise Invalid(_FORM, param="inputs", index=index)
