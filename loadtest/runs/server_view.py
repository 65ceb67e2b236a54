"""The server's side of a run: two scrapes of `/metrics`, and the difference between them.

It reads Prometheus' text format and Packlight's metric names, and knows nothing of the client's figures.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.runs.stats import Buckets

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
STAGES = ("receive", "decode", "queue", "pack", "forward", "respond")
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|Inf|NaN))(?:\s+-?\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PREFIX = "packlight_"
_EMBEDDED = "embedded"


def parse_metrics(text: str) -> Samples:
    """Values by name and sorted labels. Comments and other lines that are not samples are skipped."""
    samples = {}
    for line in text.splitlines():
        if found := _SAMPLE.match(line.strip()):
            name, labels, value = found.groups()
            pairs = ((key, re.sub(r"\\(.)", _unescape, raw)) for key, raw in _LABEL.findall(labels or ""))
            samples[name, tuple(sorted(pairs))] = float(value)
    return samples


def _unescape(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference between two scrapes."""

    before: Samples
    after: Samples

    def by_label(self, name: str, label: str, **only: str) -> dict[str, float]:
        """The increase of a counter for each value of one label, summed over the other labels; no zeros.

        `only` picks the samples whose labels have these values.
        """
        return {key: value for key, value in self._increases(name, label, only).items() if value}

    def total(self, name: str, **only: str) -> float | None:
        """The increase of a counter over all its labels, or none if there is no such counter."""
        if not any(sample == name for sample, _ in self.after):
            return None
        return sum(self.by_label(name, "", **only).values())

    def histogram(self, name: str, **only: str) -> Buckets | None:
        """The values that a histogram gained, or none if it gained none."""
        cumulative = {float(bound): count for bound, count in self._increases(f"{name}_bucket", "le", only).items()}
        bounds = tuple(sorted(cumulative))
        if not bounds or not cumulative[bounds[-1]]:
            return None
        counts = tuple(
            cumulative[bound] - (cumulative[bounds[place - 1]] if place else 0.0) for place, bound in enumerate(bounds)
        )
        return Buckets(bounds, counts, self.total(f"{name}_sum", **only) or 0.0)

    def _increases(self, name: str, label: str, only: Mapping[str, str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for (sample, labels), value in self.after.items():
            given = dict(labels)
            if sample == name and all(given.get(key) == wanted for key, wanted in only.items()):
                key = given.get(label, "")
                found[key] = found.get(key, 0.0) + value - self.before.get((sample, labels), 0.0)
        return found


@dataclass(frozen=True, slots=True)
class ServerView:
    """What the server counted during a run. `requests` are by status, `rejected` by reason.

    `images` and `texts` are by outcome. `computed_tokens` are those of both. `cached_tokens` were charged for images
    that it remembered.
    """

    requests: Mapping[str, float]
    images: Mapping[str, float]
    texts: Mapping[str, float]
    rejected: Mapping[str, float]
    charged_tokens: float | None
    computed_tokens: float
    cached_tokens: float
    padding_tokens: float
    avoided_tokens: Mapping[str, float]
    pack_fill: Buckets | None
    pack_images: Buckets | None
    stages: Mapping[str, Buckets]
    restarted: bool

    @property
    def embedded(self) -> float:
        """Images and texts that got a vector."""
        return self.images.get(_EMBEDDED, 0.0) + self.texts.get(_EMBEDDED, 0.0)

    @property
    def padding_waste(self) -> float:
        """The share of padding in all that the device computed."""
        rows = self.computed_tokens + self.padding_tokens
        return self.padding_tokens / rows if rows else float("nan")

    @property
    def wastes(self) -> dict[str, float]:
        """The share of padding, and what it would have been in other layouts, by layout."""
        if not self.computed_tokens:
            return {}
        others = {name: tokens / (tokens + self.computed_tokens) for name, tokens in self._by_size()}
        return {"packed": self.padding_waste, **others}

    def _by_size(self) -> list[tuple[str, float]]:
        return sorted(self.avoided_tokens.items(), key=lambda item: item[1])


def read(before: str | None, after: str | None, *, route: str) -> ServerView | None:
    """The view between two scrapes, or none if one is missing or they are not Packlight's."""
    if before is None or after is None or _PREFIX not in after:
        return None
    delta = Delta(parse_metrics(before), parse_metrics(after))
    stages = {each: delta.histogram(f"{_PREFIX}stage_seconds", stage=each) for each in STAGES}
    tokens = delta.by_label(f"{_PREFIX}tokens_total", "kind")
    requests = delta.by_label(f"{_PREFIX}requests_total", "status", route=route)
    return ServerView(
        requests=requests,
        images=delta.by_label(f"{_PREFIX}images_total", "outcome"),
        texts=delta.by_label(f"{_PREFIX}texts_total", "outcome"),
        rejected=delta.by_label(f"{_PREFIX}rejected_total", "reason"),
        charged_tokens=delta.total(f"{_PREFIX}charged_tokens_total"),
        computed_tokens=tokens.get("image", 0.0) + tokens.get("text", 0.0),
        cached_tokens=delta.total(f"{_PREFIX}cache_saved_tokens_total") or 0.0,
        padding_tokens=tokens.get("padding", 0.0),
        avoided_tokens=delta.by_label(f"{_PREFIX}padding_avoided_tokens_total", "layout"),
        pack_fill=delta.histogram(f"{_PREFIX}pack_fill_ratio"),
        pack_images=delta.histogram(f"{_PREFIX}pack_images"),
        stages={name: found for name, found in stages.items() if found},
        restarted=any(value < 0 for value in requests.values()),
    )
