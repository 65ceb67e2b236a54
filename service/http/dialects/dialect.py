"""What every dialect gives: how its body is read, how its answer is written, and the shape of its errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from model.images.decode import DecodeMode
from service.errors import Invalid, ModelNotFound, ServiceError, from_validation_error, validation_words
from service.limits import Limits, ModelFacts
from service.requests.request import EmbedRequest
from service.requests.results import EmbeddedItem

Fields = TypeVar("Fields", bound=BaseModel)

# The answer to a part that is neither an image nor a text, by the name of its field.
_NOT_TAKEN = {
    "video_url": "videos are not taken; send their frames as images",
    "input_audio": "the model hears nothing; images and texts are taken",
    "audio_url": "the model hears nothing; images and texts are taken",
    "image_embeds": "vectors are not taken in place of an image; send its file",
    "video": "videos are not taken; send their frames as images",
    "audio": "the model hears nothing; images and texts are taken",
    "pdf": "documents are not taken; send their pages as images",
    "file": "send an image as image_url",
    "image": "send an image as image_url",
    "source": "send an image as image_url",
    "tool_calls": "conversations with tools are not taken",
}

INPUT_TYPE = "Puts the model's prompt of that name before texts, if it has one. Otherwise it changes nothing."
# What Cohere, Jina and NIM call the prompts that models of text name query and document.
_TASKS = {
    "search_query": "query", "retrieval.query": "query",
    "search_document": "document", "retrieval.passage": "document", "passage": "document",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """The model that dialects speak about. decode: of requests that name no mode. aliases: its other names.

    fetches_urls: whether an image may be a URL.
    """

    model: ModelFacts
    limits: Limits
    decode: DecodeMode
    aliases: tuple[str, ...] = ()
    fetches_urls: bool = False

    @property
    def fuses(self) -> bool:
        """Whether the model makes one vector of several texts and images."""
        return self.model.text is not None and self.model.text.documents is not None

    def task(self, named: str | None) -> str | None:
        """The model's own name of a prompt that another service names; None for its default prompt, and for a model
        that has no such prompt."""
        documents = self.model.text.documents if self.model.text else None
        if named is None or documents is None:
            return None
        own = {name.lower(): name for name in documents.prompts}
        return own.get(_TASKS.get(named, named).lower())

    def check_name(self, name: str | None) -> None:
        """Raises `ModelNotFound` for a name that is not the model's."""
        if name is not None and name != self.model.name and name not in self.aliases:
            raise ModelNotFound(
                f"model {name[:100]!r} is not served here; {self.model.name!r} is (model, model_aliases)", param="model"
            )


@dataclass(frozen=True, slots=True)
class Body:
    """A request as it came. content: its JSON object, without fields that are null, or the fields of its form.

    headers: by their names in lower case. form_images: how many images the form brought. path: where it was sent.
    request_id: as in `X-Request-ID` of the answer.
    """

    content: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    form_images: int = 0
    path: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Octets:
    """An answer that is no JSON: bytes, in pieces, and headers that tell what they are."""

    pieces: list[bytes]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood.

    write: makes the answer's JSON, or `Octets`, from the results, in the order of the inputs. It must not refer to the
    body, whose images would then stay in memory; it may raise `Invalid`. headers: of the answer, beside those that
    every dialect's answer has.
    """

    request: EmbedRequest
    write: Callable[[Sequence[EmbeddedItem]], Any]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A request and answer shape of another service.

    name: the label in metrics. paths: where it is spoken. model, answer: the fields of a body and of an answer, for the
    OpenAPI page. read: raises `ServiceError` for a body that it does not understand. error: the JSON of an error.
    takes: the kind of body. is_meant: whether a body is in this dialect, where several share a path. gives_octets:
    whether an answer may be `Octets`. headers: those of a request that it reads, and what they do. any_model: the
    served model answers, whatever model is named.
    """

    name: str
    paths: tuple[str, ...]
    model: type[BaseModel]
    read: Callable[[Body, Served], Asked]
    error: Callable[[ServiceError], dict[str, Any]]
    answer: type[BaseModel]
    summary: str
    takes: Literal["json", "form"] = "json"
    is_meant: Callable[[Body], bool] = lambda body: True
    gives_octets: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    any_model: bool = False

    def described(self, served: Served) -> dict[str, Any]:
        """For `/info`."""
        models = "any" if self.any_model else [served.model.name, *served.aliases]
        return {"name": self.name, "paths": self.paths, "models": models}


def checked(model: type[Fields], content: dict[str, Any]) -> Fields:
    """The fields of a body. Raises `Invalid`, which names one that is unknown, or the first that is wrong."""
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        raise _fault_inside(error, content) or from_validation_error(error, model) from None


def placed(fault: ServiceError) -> str:
    """The message behind the field and the place at fault, for dialects whose errors are a text alone."""
    if fault.param is None or (fault.index is None and fault.param in fault.message):
        return fault.message
    place = fault.param if fault.index is None else f"{fault.param}[{fault.index}]"
    if fault.message.startswith(place):
        return fault.message
    return f"{place}: {fault.message.removeprefix(f'{fault.param}: ')}"


def _fault_inside(error: ValidationError, content: dict[str, Any]) -> Invalid | None:
    """For a key within a field that is unknown, or else the deepest one that is wrong, by its whole path.

    pydantic lists a fault for every form that a value might have had. None if a field as a whole is at fault.
    """
    all_details = error.errors(include_url=False, include_context=False, include_input=False)
    found = [(_path(details, content), details) for details in all_details]
    for path, details in found:
        if details["type"] == "extra_forbidden" and len(path) > 1:
            return _named(path, _NOT_TAKEN.get(str(path[-1]), "there is no such key"))
    # Two may be equally deep. The caller meant the form that was read further.
    deepest = max(
        (path for path, _ in found), key=lambda path: (len(path), [part for part in path if isinstance(part, int)])
    )
    # A value that may be a text or an object has a fault for each.
    reasons = dict.fromkeys(validation_words(details) for path, details in found if path == deepest)
    if len(deepest) < 2 and len(reasons) < 2:
        return None
    return _named(deepest, ", or ".join(reasons))


def _named(path: list[int | str], why: str) -> Invalid:
    """path: written as in `inputs[1].content[0].text`."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path).removeprefix(".")
    index = path[1] if len(path) > 1 and isinstance(path[1], int) else None
    return Invalid(f"{name}: {why}", param=str(path[0]), index=index)


def _path(details: Mapping[str, Any], content: Any) -> list[int | str]:
    """The keys and places of a fault. pydantic has the names of alternatives among them, which the body has not."""
    path: list[int | str] = []
    for part in details["loc"]:
        if (isinstance(content, dict) and part in content) or (isinstance(content, list) and isinstance(part, int)):
            content = content[part]
            path.append(part)
    return [*path, details["loc"][-1]] if details["type"] == "missing" else path
