"""One call of the embedder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.requests.admission.hold import Hold
from service.requests.cache.recall import Recall
from service.requests.parameters import EmbedParameters
from service.requests.request import ImageBounds


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """What every stage needs to know of it.

    bounds: of each image, None for those of `parameters`. on_failure: what becomes of an item's error; raises it unless
    the request wants the other items anyway. fetches_s: how long each URL took.
    """

    hold: Hold
    parameters: EmbedParameters
    bounds: Sequence[ImageBounds | None]
    deadline_s: float
    recall: Recall
    on_failure: Callable[[ServiceError], ServiceError]
    fetches_s: list[float] = field(default_factory=list)
