"""Builds the runner that the settings ask for: the one place in `service` that imports torch, and only when called."""

import time
from typing import TYPE_CHECKING

from service.limits import Limits, ModelFacts
from service.settings import Settings

if TYPE_CHECKING:
    from model.runner import Runner


def load_runner(settings: Settings) -> tuple["Runner", ModelFacts]:
    """Reads the weights and puts them on the device. Raises `CheckpointError` or `BackendUnavailable`."""
    from model.checkpoint import load_checkpoint
    from model.runner import Runner, default_device

    checkpoint = load_checkpoint(settings.model, revision=settings.revision)
    device = default_device() if settings.devices == "auto" else settings.devices
    runner = Runner(checkpoint, device=device, dtype=settings.dtype, attention=settings.attention)
    facts = ModelFacts(
        name=checkpoint.name,
        dim=runner.width,
        patch_size=runner.patch_size,
        default_max_tokens=checkpoint.preprocessing.default_max_tokens,
        parameters=runner.parameters,
        fingerprint=runner.fingerprint(),
        device=str(runner.device),
        dtype=runner.dtype_name,
        attention=runner.attention,
        notice=checkpoint.notice,
    )
    return runner, facts


def warm_up(runner: "Runner", limits: Limits) -> float:
    """What a device does once, it does now, and what memory the largest pack takes, it takes now.

    Returns the tokens a second of that pack: a low guess to begin with, since it was the first of its size.
    """
    for lengths in ([1], [limits.default_max_tokens], _fullest(limits)):
        began_s = time.monotonic()
        runner.warm_up(lengths)
        took_s = time.monotonic() - began_s
    return sum(lengths) / took_s


def _fullest(limits: Limits) -> list[int]:
    """As many of the largest images as a pack can hold."""
    return [limits.max_image_tokens] * (limits.max_batch_tokens // limits.max_image_tokens)
