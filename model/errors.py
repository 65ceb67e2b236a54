"""What can be wrong with an image, a budget or a checkpoint.

    ModelError
    ├── ImageError              something about the bytes of one image; other images are unaffected
    │   ├── UnsupportedFormat     not an image, or a format that is not read
    │   ├── ImageTooLarge         more pixels, or more of anything else, than is decoded
    │   └── UndecodableImage      a known format whose content is broken or lies about itself
    ├── BudgetError             a budget that no image, or not this image, can meet; `param` names the parameter
    ├── CheckpointError         the weights or their configuration cannot be used; nothing can be served
    ├── BackendUnavailable      an attention backend, dtype or device was asked for that this machine lacks
    └── DeviceError             the device could not run a pack
        ├── DeviceOutOfMemory     it has no memory for that pack; a smaller one may fit
        └── DeviceLost            it will not run any pack again in this process

Messages are written for whoever sent the image or started the server: they name the limit and the setting that
sets it, and never quote a foreign library.
"""


class ModelError(Exception):
    """Base of everything that `model` raises on purpose."""


class ImageError(ModelError):
    """One image cannot be embedded because of its own bytes."""


class UnsupportedFormat(ImageError):
    """Not an image, or an image in a format that is not read."""


class ImageTooLarge(ImageError):
    """More pixels than `max_decode_pixels`, or more sides, metadata or parts than any real picture has."""


class UndecodableImage(ImageError):
    """A format that is read, but truncated, corrupt, or different from what its header said."""


class BudgetError(ModelError):
    """A budget that cannot be met. `param` is the parameter to change."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class CheckpointError(ModelError):
    """A checkpoint is missing, malformed, or not of a family that is read. Names the file and the key."""


class BackendUnavailable(ModelError):
    """What was asked for by name is not to be had on this machine. Nothing is substituted in silence."""


class DeviceError(ModelError):
    """The device could not run a pack."""


class DeviceOutOfMemory(DeviceError):
    """The device has no memory for that pack; a smaller one may fit."""


class DeviceLost(DeviceError):
    """The device answers nothing any more: only another process can have it back."""
