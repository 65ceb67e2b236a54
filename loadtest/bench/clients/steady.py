"""The rate of answers that come in bursts, a pack at a time. Pure arithmetic."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The share of a run, at either end, that is searched for the best cut.
_SEARCHED = 0.25


@dataclass(frozen=True, slots=True)
class Steady:
    """Images and processor time between two cuts."""

    images: int
    seconds: float
    cpu_s: float
    sender_cpu_s: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def images_per_cpu_s(self) -> float:
        return self.images / self.cpu_s

    def images_per_s_without_sender(self, cores: int) -> float:
        """The rate if the sender's share of `cores` had gone to the same work as the rest."""
        return self.images_per_s * cores / (cores - self.sender_cpu_s / self.seconds)


@dataclass(frozen=True, slots=True)
class Sample:
    """Processor time spent up to an instant."""

    at_s: float
    cpu_s: float
    sender_cpu_s: float


class TooFewAnswers(ValueError):
    """Too few packs came in the measured time."""


def steady(answered_s: Sequence[float], samples: Sequence[Sample]) -> Steady:
    """What happened between the longest silence near the first sample and the longest near the last.

    A pack is answered at once, so a cut elsewhere could count one pack more or less. answered_s: when each image was
    answered, ascending. Raises `TooFewAnswers`.
    """
    began_s, ended_s = samples[0].at_s, samples[-1].at_s
    searched_s = _SEARCHED * (ended_s - began_s)
    first = _before_silence(answered_s, began_s, began_s + searched_s)
    last = _before_silence(answered_s, ended_s - searched_s, ended_s)
    from_s, to_s = answered_s[first], answered_s[last]
    at_s = [sample.at_s for sample in samples]
    cpu_s = np.interp((from_s, to_s), at_s, [sample.cpu_s for sample in samples])
    sender_cpu_s = np.interp((from_s, to_s), at_s, [sample.sender_cpu_s for sample in samples])
    return Steady(last - first, to_s - from_s, float(cpu_s[1] - cpu_s[0]), float(sender_cpu_s[1] - sender_cpu_s[0]))


def _before_silence(answered_s: Sequence[float], from_s: float, to_s: float) -> int:
    """The index of the answer before the longest silence in this span. Raises `TooFewAnswers`."""
    first, end = bisect_left(answered_s, from_s), min(bisect_left(answered_s, to_s), len(answered_s) - 1)
    if first >= end:
        raise TooFewAnswers("too few answers for a rate: measure for longer (--seconds)")
    return max(range(first, end), key=lambda index: answered_s[index + 1] - answered_s[index])
