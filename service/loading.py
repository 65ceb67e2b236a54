"""Builds the runner that the settings ask for: the one place in `service` that imports torch, and only when called."""

from typing import TYPE_CHECKING

from service.limits import ModelFacts
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
        default_max_tokens=checkpoint.default_max_tokens,
        parameters=runner.parameters,
        fingerprint=runner.fingerprint(),
        device=str(runner.device),
        dtype=runner.dtype_name,
        attention=runner.attention,
        notice=checkpoint.notice,
    )
    return runner, facts
