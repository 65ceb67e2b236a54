"""What the page of `packlight embed --html` says, as the values that its script reads. Knows no HTML."""

import os
from base64 import b64encode
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.jobs.packs import PackCount
from service.jobs.rows import Embedded, Failed, TextVector
from service.limits import ModelFacts
from service.names import one_line
from service.requests.results import describe_plan, normalized

MOST_PICTURES = 500
"""Pictures that a page shows. Each adds 5 to 20 kB to the file."""
_MOST_FAILURES = 500

# Rows of vectors that are compared with all others at once. They take 4 bytes times the number of the others.
_BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All that one run made of files and texts.

    named: the files that the command line names. gallery: the files among which neighbors are sought; None for all.
    top: neighbors of each picture, at most.
    """

    model: ModelFacts
    fingerprint: str
    count: PackCount
    results: Sequence[Embedded]
    texts: Sequence[TextVector]
    failures: Sequence[Failed]
    top: int
    named: Container[str] = ()
    gallery: Sequence[Path] | None = None

    @property
    def shown(self) -> list[int]:
        """The rows of `results` that the page shows, in its order: those with a thumbnail, `named` files first."""
        rows = [row for row, result in enumerate(self.results) if result.thumb]
        return sorted(rows, key=lambda row: self.results[row].path not in self.named)

    def contents(self) -> dict[str, Any]:
        """What `report.js` reads. Pictures without a thumbnail are counted and not shown."""
        shown = self.shown
        names = _short_names([result.path for result in self.results])
        near = self._near(shown, names)
        return {
            "model": self._model(),
            "count": self._count(),
            "pictures": [
                _picture(self.results[row]) | {"name": names[row], "near": next(near)} for row in shown
            ],
            "left_out": len(self.results) - len(shown),
            "texts": [{"text": text.text, "tokens": text.tokens, "near": next(near)} for text in self.texts],
            "failed": [{"name": one_line(each.path), "reason": each.reason} for each in self.failures[:_MOST_FAILURES]],
            "failed_left_out": max(0, len(self.failures) - _MOST_FAILURES),
        }  # fmt: skip

    def _model(self) -> dict[str, Any]:
        model = self.model
        plan = self.results[0].plan if self.results else None
        return {
            "name": model.name, "fingerprint": self.fingerprint, "dim": model.dim, "dtype": model.dtype,
            "strategy": plan.strategy if plan else None, "token_cap": plan.token_cap if plan else None,
        }  # fmt: skip

    def _count(self) -> dict[str, Any]:
        count = self.count
        return {
            "images": len(self.results), "failed": len(self.failures), "packs": count.packs,
            "tokens": count.image_tokens, "computed_tokens": count.computed_tokens,
            "longest_tokens": count.longest_tokens,
            # To a model of one size there is no cap below it.
            "cap_tokens": None if self.model.geometry.fixed else count.cap_tokens,
        }  # fmt: skip

    def _near(self, shown: Sequence[int], names: Sequence[str]) -> Iterator[list[list[Any]]]:
        """For each shown picture and then each text its neighbors, the nearest first: where it stands among the shown
        pictures, or else its name, and the cosine."""
        places: dict[int, int | str] = dict(enumerate(names)) | {row: place for place, row in enumerate(shown)}
        paths = None if self.gallery is None else {path.resolve() for path in self.gallery}
        rows = [row for row, result in enumerate(self.results) if paths is None or Path(result.path).resolve() in paths]
        if not rows:
            yield from ([] for _ in range(len(shown) + len(self.texts)))
            return
        vectors = normalized(np.stack([self.results[row].embedding for row in rows]))
        asked = [*(self.results[row].embedding for row in shown), *(text.embedding for text in self.texts)]
        own = [*shown, *(None for _ in self.texts)]
        for query, similarity in zip(own, _cosines(asked, vectors), strict=True):
            # One more than is shown, since the picture itself is among them.
            order = np.argsort(-similarity, kind="stable")[: self.top + 1]
            others = [index for index in order if rows[index] != query][: self.top]
            yield [[places[rows[index]], round(float(similarity[index]), 4)] for index in others]


def _cosines(asked: Sequence[NDArray[np.float32]], vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """For each vector `[E]` its cosines with float32 `[B, E]`, whose rows have length 1: `[B]`."""
    for start in range(0, len(asked), _BLOCK_ROWS):
        yield from normalized(np.stack(asked[start : start + _BLOCK_ROWS])) @ vectors.T


def _picture(result: Embedded) -> dict[str, Any]:
    plan = result.plan
    described: Mapping[str, Any] = describe_plan(plan)
    return {
        "title": one_line(result.path),
        "thumb": b64encode(result.thumb).decode(),
        "segments": len(plan.segments),
        **{name: described[name] for name in ("size", "resized", "grid", "tokens", "strategy")},
    }


def _short_names(paths: Sequence[str]) -> list[str]:
    """Each path below the folder that all of them have in common."""
    if not paths:
        return []
    whole = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [one_line(os.path.relpath(path, folder)) for path in whole]
