"""What published tables say of tokens and quality, and the cap that each task starts with because of it.

SigLIP 2 (arXiv 2502.14786), Table 7, NaFlex rows: one model at eight lengths. NaViT (arXiv 2307.06304), appendix C:
256 tokens are within 0.3% of the best on ImageNet, 128 lose about 1%. Neither measures documents, charts, screenshots
or video. Tasks that read text go by HierText, the nearest; the others by ImageNet.
"""

from dataclasses import dataclass
from typing import Final, Literal

Task = Literal["photo", "document", "chart", "screenshot", "video_frame"]

# Rows of the table, in tokens. NaFlex was trained at 128, 256, 576, 784 and 1,024.
LENGTHS: Final = (64, 144, 256, 576, 676, 784, 900, 1024)
SHORTEST_TRAINED_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the table for SigLIP 2 B/16 and So400m/16, with a value for each length."""

    name: str
    base: tuple[float, ...]
    so400m: tuple[float, ...]

    def change(self, before_tokens: int, after_tokens: int) -> str | None:
        """The rows at or below the two lengths. None if that is one row, or `before_tokens` is below them all."""
        before, after = _row(before_tokens), _row(after_tokens)
        if before < 0 or before == after:
            return None
        low = max(after, 0)
        falls = [
            f"{model} {column[before]} → {column[low]}"
            for model, column in (("B/16", self.base), ("So400m", self.so400m))
        ]
        rows = f"{LENGTHS[before]:,} → {LENGTHS[low]} tokens"
        return f"{self.name} at {rows}: {', '.join(falls)}{'; and shorter than any row' if after < 0 else ''}"


_IMAGENET = Measure(
    "ImageNet zero-shot",
    (71.2, 76.2, 78.5, 80.0, 80.1, 80.2, 80.3, 80.4),
    (78.5, 81.8, 83.5, 84.1, 84.2, 84.3, 84.3, 84.4),
)
_HIERTEXT = Measure(
    "HierText text-to-image recall",
    (3.4, 5.7, 7.4, 8.7, 8.8, 8.7, 8.6, 9.1),
    (5.6, 8.0, 9.2, 11.3, 11.3, 11.5, 11.7, 11.7),
)


@dataclass(frozen=True, slots=True)
class Quality:
    """start_tokens: the cap that a task starts with. knee_tokens: below it, quality falls faster than cost."""

    start_tokens: int
    knee_tokens: int
    measure: Measure
    reads_text: bool
    why: str


_SMALL_TEXT = "small text gains up to 1,024 tokens, the longest trained"

QUALITY: Final[dict[Task, Quality]] = {
    "photo": Quality(
        256, 256, _IMAGENET, False, "256 tokens are the knee for photos: 576 add at most 1.5 points of ImageNet"
    ),
    "video_frame": Quality(256, 144, _IMAGENET, False, "frames are photos, and neighbouring frames repeat them"),
    "chart": Quality(576, 256, _HIERTEXT, True, "labels gain up to 576 tokens, and little beyond"),
    "screenshot": Quality(1024, 576, _HIERTEXT, True, _SMALL_TEXT),
    "document": Quality(1024, 576, _HIERTEXT, True, _SMALL_TEXT),
}


def _row(tokens: int) -> int:
    """The longest row of the table that is no longer than `tokens`; -1 if none is."""
    return sum(length <= tokens for length in LENGTHS) - 1
