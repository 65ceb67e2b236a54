"""What the served model is, and the limits that follow from it and the settings. Plain values: no torch here."""

from dataclasses import dataclass

from model.budget import Budget, settle_budget
from model.geometry import Geometry, Strategy
from service.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What callers may know of the model and of the device it runs on. `dim` is D, the width of an embedding."""

    name: str
    dim: int
    patch_size: int
    default_max_tokens: int
    parameters: int
    fingerprint: str
    device: str
    dtype: str
    attention: str
    notice: str | None = None

    @property
    def geometry(self) -> Geometry:
        """The model as sizing sees it."""
        return Geometry.for_naflex(self.patch_size, self.default_max_tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in tokens, settled for one model on one device."""

    patch_size: int
    default_max_tokens: int
    max_image_tokens: int
    max_batch_tokens: int
    max_queue_tokens: int

    @classmethod
    def settle(cls, settings: Settings, facts: ModelFacts) -> "Limits":
        """Fills in what the settings leave to the model and the device. Raises `SettingsError`.

        What can be queued is the share of one of `http_workers`."""
        max_batch_tokens = settings.max_batch_tokens or (16_384 if facts.device.startswith("cuda") else 4_096)
        if settings.max_image_tokens > max_batch_tokens:
            raise SettingsError(
                f"max_image_tokens ({settings.max_image_tokens}) is over max_batch_tokens ({max_batch_tokens}, "
                f"the default on {facts.device}): an image of that size would fit no pack"
            )
        max_queue_tokens = (settings.max_queue_tokens or 8 * max_batch_tokens) // settings.http_workers
        if settings.max_image_tokens > max_queue_tokens:
            raise SettingsError(
                f"max_image_tokens ({settings.max_image_tokens}) is over max_queue_tokens "
                f"({max_queue_tokens * settings.http_workers}){settings.shared}: an image of that size could never be "
                "admitted"
            )
        default_max_tokens = settings.default_max_tokens or min(facts.default_max_tokens, settings.max_image_tokens)
        return cls(facts.patch_size, default_max_tokens, settings.max_image_tokens, max_batch_tokens, max_queue_tokens)

    def budget(
        self,
        geometry: Geometry,
        strategy: Strategy,
        *,
        max_tokens: int | None = None,
        max_pixels: int | None = None,
        min_pixels: int | None = None,
    ) -> Budget:
        """The bounds of one image. Raises `BudgetError`."""
        return settle_budget(
            geometry=geometry,
            strategy=strategy,
            max_tokens=max_tokens,
            max_pixels=max_pixels,
            min_pixels=min_pixels,
            default_max_tokens=self.default_max_tokens,
            max_image_tokens=self.max_image_tokens,
        )
