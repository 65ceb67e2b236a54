"""Rates and latencies of the last seconds, from what was counted before and after them: pure arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BUCKET, _COUNT, _SUM = (f"packlight_stage_seconds_{part}" for part in ("bucket", "count", "sum"))

Counts = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of the last `over_s` seconds. padding_waste: padding tokens over all computed, None without any."""

    over_s: float
    images_per_s: float
    texts_per_s: float
    tokens_per_s: float
    packs_per_s: float
    padding_waste: float | None


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Times of one stage in the last seconds. count: how often it ran. p50_ms, p95_ms: to a bucket of `/metrics`."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float


def rates_of(before: Counts, after: Counts, over_s: float) -> Rates:
    def grown(*key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    tokens = grown("packlight_tokens_total", "image") + grown("packlight_tokens_total", "text")
    padding = grown("packlight_tokens_total", "padding")
    return Rates(
        over_s=round(over_s, 3),
        images_per_s=_per_s(grown("packlight_images_total", "embedded"), over_s),
        texts_per_s=_per_s(grown("packlight_texts_total", "embedded"), over_s),
        tokens_per_s=_per_s(tokens, over_s),
        packs_per_s=_per_s(grown("packlight_pack_images_count"), over_s),
        padding_waste=round(padding / (tokens + padding), 4) if tokens + padding else None,
    )


def _per_s(count: float, over_s: float) -> float:
    return round(count / over_s, 2) if over_s > 0 else 0.0


def stages_of(before: Counts, after: Counts, stages: Sequence[str]) -> dict[str, StageTimes | None]:
    """By stage; None for one that did not run meanwhile."""
    bounds = sorted({float(key[1]) for key in after if key[0] == _BUCKET})
    texts = {float(key[1]): key[1] for key in after if key[0] == _BUCKET}
    grown = {key: value - before.get(key, 0.0) for key, value in after.items() if key[0] in (_BUCKET, _COUNT, _SUM)}
    made: dict[str, StageTimes | None] = {}
    for stage in stages:
        count = grown.get((_COUNT, stage), 0.0)
        if count <= 0:
            made[stage] = None
            continue
        cumulative = [(bound, grown.get((_BUCKET, texts[bound], stage), 0.0)) for bound in bounds]
        made[stage] = StageTimes(
            count=round(count),
            mean_ms=round(grown.get((_SUM, stage), 0.0) / count * 1000, 3),
            p50_ms=round(percentile(cumulative, 0.5) * 1000, 3),
            p95_ms=round(percentile(cumulative, 0.95) * 1000, 3),
        )
    return made


def percentile(cumulative: Sequence[tuple[float, float]], share: float) -> float:
    """From a histogram: how many were at most each bound, the last of them infinite. Between bounds it is a straight
    line, as in Prometheus, and beyond the last finite bound it is that bound."""
    wanted = share * cumulative[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in cumulative:
        if count >= wanted and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = (lower if math.isinf(bound) else bound), count
    return lower
