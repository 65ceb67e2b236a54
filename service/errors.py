"""The errors that a caller is told of: one small tree, each class a status and a code.

`ClientGone` is not in the tree: nobody is left to be told.
"""

import traceback
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from model.errors import BudgetError, ImageTooLarge, ModelError, TextError, UndecodableImage, UnsupportedFormat


class ServiceError(Exception):
    """Becomes `{"error": {"code", "message", "param", "index"}}`.

    param, index: the parameter, and the image or text, at fault. reason: what a refusal counts under, by default the
    code.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, param: str | None = None, index: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.index = message, param, index
        self.reason = reason or self.code

    def body(self) -> dict[str, object]:
        return {"code": self.code, "message": self.message, "param": self.param, "index": self.index}

    def headers(self) -> dict[str, str]:
        return {}


class BadRequest(ServiceError):
    """The body or its encoding cannot be parsed."""

    status, code = 400, "bad_request"


class Unauthorized(ServiceError):
    """No key, or not one of the server's."""

    status, code = 401, "unauthorized"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class NotFound(ServiceError):
    """No such path, or a model that is not served here."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """A model that is not served here. Errors of OpenAI's API have a type."""

    def body(self) -> dict[str, object]:
        return super().body() | {"type": "invalid_request_error"}


class MethodNotAllowed(ServiceError):
    """The path takes another method."""

    status, code = 405, "method_not_allowed"


class FingerprintMismatch(ServiceError):
    """The caller expects vectors of another fingerprint than the server makes. `X-Fingerprint` has the server's."""

    status, code = 409, "fingerprint_mismatch"

    def __init__(self, message: str, *, fingerprint: str) -> None:
        super().__init__(message, param="expect_fingerprint")
        self._fingerprint = fingerprint

    def headers(self) -> dict[str, str]:
        return {"X-Fingerprint": self._fingerprint}


class UploadTimeout(ServiceError):
    """The request, or its body, took too long to arrive."""

    status, code = 408, "upload_timeout"


class TooLarge(ServiceError):
    """Too many bytes, pixels, images or texts."""

    status, code = 413, "too_large"


class UnsupportedMedia(ServiceError):
    """Not an image, or a format that is not read."""

    status, code = 415, "unsupported_media"


class UnsupportedCoding(UnsupportedMedia):
    """The body has a content coding that is not decoded. `Accept-Encoding` names those that are (RFC 9110, 15.5.16)."""

    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "gzip, deflate"}


class Invalid(ServiceError):
    """A parameter is wrong, an image cannot be decoded, or a text is not taken."""

    status, code = 422, "invalid"


class FetchFailed(Invalid):
    """The host of an image's URL did not give it. Another attempt may work if the host was slow or broken."""

    code = "fetch_failed"


class Overloaded(ServiceError):
    """No room now; `Retry-After` says when there will be some if no new work arrives."""

    status, code = 429, "overloaded"

    def __init__(self, message: str, *, retry_after_s: int, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class HeadersTooLarge(ServiceError):
    """Too many bytes or lines before the body."""

    status, code = 431, "headers_too_large"


class EngineFault(ServiceError):
    """The forward failed; the same request may work again."""

    status, code = 500, "engine_fault"


class Unavailable(ServiceError):
    """Not ready, or being shut down."""

    status, code = 503, "unavailable"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class DeadlineExceeded(ServiceError):
    """The deadline passed before the images and texts had their turn."""

    status, code = 504, "deadline_exceeded"


class ClientGone(Exception):
    """The caller closed the connection before the answer was there."""


ERRORS: tuple[type[ServiceError], ...] = (
    BadRequest, Unauthorized, NotFound, FingerprintMismatch, UploadTimeout, TooLarge, UnsupportedMedia, Invalid,
    Overloaded, HeadersTooLarge, EngineFault, Unavailable, DeadlineExceeded,
)  # fmt: skip


def unknown_error() -> ServiceError:
    """For an exception that nobody foresaw. Nothing of it reaches a client."""
    return ServiceError("something went wrong in the server; its log knows the X-Request-ID")


def from_model_error(error: ModelError, *, index: int | None = None) -> ServiceError:
    """The only place where an error of `model` becomes a status."""
    if isinstance(error, BudgetError):
        return Invalid(str(error), param=error.param, index=index)
    if isinstance(error, TextError):
        return Invalid(str(error), param="texts", index=index)
    classes: dict[type[ModelError], type[ServiceError]] = {
        UnsupportedFormat: UnsupportedMedia,
        ImageTooLarge: TooLarge,
        UndecodableImage: Invalid,
    }
    return classes[type(error)](str(error), param="image", index=index)


def from_validation_error(error: ValidationError, model: type[BaseModel], *, depth: int = 1) -> Invalid:
    """An unknown key within a field, or else the first value that `model` refused: by the name of the field, and the
    index of the list's item that has it.

    depth: how many parts of the path make that name. `workload.3.height` has three.
    """
    # All are made to see the first. Thousands are possible, and without these parts take a third of the time.
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a value with several forms, the first error is that it has not the first of them.
    details = next((each for each in found if each["type"] == "extra_forbidden" and len(each["loc"]) > depth), found[0])
    path, rest = details["loc"][:depth], details["loc"][depth:]
    name = ".".join(str(part)[:40] for part in path)
    if details["type"] == "extra_forbidden" and rest:
        message = f"{name} has no field {str(rest[-1])[:40]!r}"
    elif details["type"] == "extra_forbidden":
        message = f"there is no parameter {name!r}"
        if len(path) == 1:
            message += f"; there are: {', '.join(model.model_fields)}"
    elif details["type"] == "string_pattern_mismatch":
        # The description says what the pattern means.
        message = f"{name} has no such value: {model.model_fields[name].description}"
    else:
        message = f"{name}: {validation_words(details)}" if name else validation_words(details)
    index = next((part for part in rest if isinstance(part, int)), None)
    return Invalid(message, param=name if path else None, index=index)


def validation_words(details: Mapping[str, Any]) -> str:
    """One of pydantic's `errors()` as a clause."""
    if details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "input should be a valid object"  # a reader of JSON knows no dictionaries, and not our classes
    message = str(details["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def packlight_error(error: ServiceError) -> dict[str, Any]:
    """Our own shape of an error. Other dialects have others."""
    return {"error": error.body()}


def let_go(error: BaseException) -> None:
    """Clears the frames of an error and of the errors behind it, because they hold the images of its request.

    An error and its tasks refer to one another. All that they reach would otherwise stay, counted nowhere, until Python
    next collects old objects. A frame that still runs is kept, and the stack can be printed as before.

    Not for an error that a coroutine or a generator caught before it waited: clearing its frame would end it.
    """
    cleared: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or any(each is other for other in cleared):
            continue
        cleared.append(each)
        traceback.clear_frames(each.__traceback__)
        left += [each.__context__, each.__cause__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
