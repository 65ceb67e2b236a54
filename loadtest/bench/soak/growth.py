"""Whether something grows, by slopes that outliers do not move. Pure."""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.bench.servers.processes import ProcessUse
from loadtest.bench.soak.records import Sample

Points = Sequence[tuple[float, float]]
Lives = Mapping[int, Points]

# The least value of each is compared: a large pack takes half a gigabyte for a moment and connections come and go, but
# a leak raises the minimum.
_BUCKET_S = 60.0
# A process that was started a moment ago still warms up.
_SETTLES_S = 120.0


@dataclass(frozen=True, slots=True)
class Growth:
    """typical: the median. in_life: the slope within a process times the longest life. over_run: the slope over all
    processes, those that took another's place too, times the run. NaN where there is too little to say."""

    typical: float
    in_life: float
    over_run: float

    @property
    def most(self) -> float:
        return max((each for each in (self.in_life, self.over_run) if not math.isnan(each)), default=math.nan)


def growth(lives: Lives, *, seconds: float) -> Growth:
    """lives: times and values of each process. Its first seconds are left out, and the first tenth of the run."""
    least = [
        (life, at_s, value)
        for life, points in lives.items()
        for at_s, value in _least(points, seconds)
    ]  # fmt: skip
    if not least:
        return Growth(math.nan, math.nan, math.nan)
    spans = {
        life: max(at_s for _, at_s, _ in points) - min(at_s for _, at_s, _ in points)
        for life, points in ((life, list(group)) for life, group in itertools.groupby(least, lambda each: each[0]))
    }
    # A short life ends before it shows more than noise.
    long = {life for life, span_s in spans.items() if span_s >= seconds / 4}
    at_s = [at for _, at, _ in least]
    return Growth(
        typical=statistics.median(value for _, _, value in least),
        in_life=slope([each for each in least if each[0] in long], same_life=True) * max(spans.values()),
        over_run=slope(least, same_life=False) * (max(at_s) - min(at_s)),
    )


def slope(points: Sequence[tuple[int, float, float]], *, same_life: bool) -> float:
    """The median of the slopes of all pairs of points (Theil and Sen), or of pairs of one life."""
    slopes = [
        (value - other) / (at_s - earlier_s)
        for (life, earlier_s, other), (others, at_s, value) in itertools.combinations(sorted(points, key=_time), 2)
        if at_s > earlier_s and (life == others or not same_life)
    ]
    return statistics.median(slopes) if slopes else math.nan


def _time(point: tuple[int, float, float]) -> float:
    return point[1]


def _least(points: Points, seconds: float) -> Points:
    """The least of each minute, in a short run of each twentieth."""
    born_s = points[0][0]
    # The processes of the beginning were there before.
    from_s = max(seconds / 10, born_s + min(_SETTLES_S, seconds / 10) if born_s > 0 else 0.0)
    bucket_s = min(_BUCKET_S, seconds / 20)
    least: dict[int, tuple[float, float]] = {}
    for at_s, value in points:
        if at_s >= from_s:
            bucket = int(at_s // bucket_s)
            least[bucket] = min(least.get(bucket, (at_s, math.inf)), (at_s, value), key=lambda each: each[1])
    return list(least.values())


def lives_of(samples: Sequence[Sample], name: str, figure: Callable[[ProcessUse], float]) -> Lives:
    """A figure of the processes of one name."""
    lives: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        for use in sample.processes:
            if use.name == name:
                # What was there at the first sample was there before.
                at_s = 0.0 if sample is samples[0] else sample.at_s
                lives.setdefault(use.pid, []).append((at_s, figure(use)))
    return lives


def life_of_sum(samples: Sequence[Sample], figure: Callable[[ProcessUse], float]) -> Lives:
    """The sum over all processes while all are there and none has just been started."""
    usual = Counter(len(sample.processes) for sample in samples).most_common(1)[0][0]
    first = {use.pid for use in samples[0].processes}
    born_s: dict[int, float] = {}
    for sample in samples:
        for use in sample.processes:
            born_s.setdefault(use.pid, -math.inf if use.pid in first else sample.at_s)
    return {
        0: [
            (sample.at_s, sum(map(figure, sample.processes)))
            for sample in samples
            if len(sample.processes) == usual
            and all(sample.at_s - born_s[use.pid] >= min(_SETTLES_S, samples[-1].at_s / 10) for use in sample.processes)
        ]
    }
