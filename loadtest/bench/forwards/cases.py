"""What `python -m loadtest.bench forward` measures: grids as traffic has them, for encoders of several shapes."""

from dataclasses import dataclass, replace

from loadtest.bench.forwards.contender import SHAPES, linear_layers
from model.encoders.siglip.naflex import NaFlexConfig
from model.sizing.plan import naflex_grid

# Common sizes, height × width: photos of either orientation, screens, pages, panoramas, receipts.
_SIZES = ((480, 640), (3000, 4000), (4032, 3024), (1080, 1920), (2339, 1654), (1000, 1000), (1440, 3440), (1500, 600))
_PAGES = ((2339, 1654), (3508, 2480), (1650, 1275), (1500, 600), (2200, 1700), (3300, 2550), (2400, 1000), (2339, 1654))
_BUDGETS = (64, 128, 256, 256, 256, 576, 576, 1024)
_CAPS = {"uniform": 256, "mixed": 1024, "documents": 1024, "thumbnails": 64}
WORKLOADS: dict[str, list[tuple[int, int]]] = {
    "uniform": [naflex_grid(*_SIZES[i % 8], 16, 256) for i in range(16)],
    # Each size with two budgets that are far apart.
    "mixed": [naflex_grid(*_SIZES[i % 8], 16, _BUDGETS[(3 * i + i // 8) % 8]) for i in range(16)],
    "documents": [naflex_grid(*page, 16, 1024) for page in _PAGES],
    "thumbnails": [naflex_grid(*_SIZES[i % 8], 16, 64) for i in range(32)],
}


@dataclass(frozen=True, slots=True)
class Case:
    """images: at most so many of the workload's. layers: instead of the shape's own; 0 for those."""

    shape: str
    workload: str
    dtype: str
    images: int
    layers: int

    @property
    def config(self) -> NaFlexConfig:
        config = SHAPES[self.shape]
        return replace(config, depth=self.layers) if self.layers else config

    @property
    def grids(self) -> list[tuple[int, int]]:
        return WORKLOADS[self.workload][: self.images]

    @property
    def tokens(self) -> int:
        return sum(h * w for h, w in self.grids)

    @property
    def cap(self) -> int:
        return _CAPS[self.workload]

    def flop(self) -> int:
        """FLOP of one packed forward; a multiplication and its addition are two."""
        lengths = [h * w for h, w in self.grids]
        linear = linear_layers(self.config, sum(lengths), len(lengths))
        attention = sum(4 * self.config.width * self.config.depth * length**2 for length in lengths)
        return attention + sum(2 * rows * into * out * count for rows, into, out, count in linear)
