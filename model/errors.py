"""What can go wrong with an image, a text, a budget, a checkpoint or a device.

    ModelError
    ├── ImageError              something about the bytes of one image; other images are unaffected
    │   ├── UnsupportedFormat     not an image, or a format that is not read
    │   ├── ImageTooLarge         more pixels, or more of anything else, than is decoded
    │   └── UndecodableImage      a known format with broken or contradictory content
    ├── TextError               something about one text; other inputs are unaffected
    │   ├── TextTooLong           more characters than are read, or more tokens than fit uncut
    │   └── UnreadableText        not Unicode text
    ├── BudgetError             no image, or not this one, can meet the budget; `param` names the parameter
    ├── CheckpointError         the weights or their configuration cannot be used; nothing can be served
    ├── BackendUnavailable      this machine lacks the attention backend, dtype or device that was asked for
    └── DeviceError             the device could not run a pack
        ├── DeviceOutOfMemory     it has no memory for the pack; a smaller one may fit
        └── DeviceLost            it will not run any pack again in this process

Messages address the person who sent the image or started the server. They name the limit and the setting that sets it,
and never quote a foreign library.
"""


class ModelError(Exception):
    """Base of everything that `model` raises on purpose."""


class ImageError(ModelError):
    """One image cannot be embedded because of its own bytes."""


class UnsupportedFormat(ImageError):
    """Not an image, or an image in a format that is not read."""


class ImageTooLarge(ImageError):
    """More pixels than `max_decode_pixels`, or larger sides, more metadata or more parts than any real picture has."""


class UndecodableImage(ImageError):
    """In a format that is read, but truncated, corrupt, or different from its header."""


class TextError(ModelError):
    """One text cannot be embedded because of its own characters."""


class TextTooLong(TextError):
    """More characters than `max_text_chars`, or more tokens than the model takes where cutting was not allowed."""


class UnreadableText(TextError):
    """Holds half of a surrogate pair, which no encoding of Unicode can carry."""


class BudgetError(ModelError):
    """A budget that cannot be met. `param` is the parameter to change."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class CheckpointError(ModelError):
    """A checkpoint is missing, malformed, or of an unknown family. Names the file and the key."""


class BackendUnavailable(ModelError):
    """This machine lacks what was asked for by name. Nothing is substituted silently."""


class DeviceError(ModelError):
    """The device could not run a pack."""


class DeviceOutOfMemory(DeviceError):
    """The device has no memory for the pack; a smaller one may fit."""


class DeviceLost(DeviceError):
    """The device does not answer any more. Only another process can use it again."""
