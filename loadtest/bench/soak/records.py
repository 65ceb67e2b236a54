"""What a soak records: the fate of each request, the faults, the processes now and then, and how it ended.

Times are seconds from the start of the load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadtest.bench.servers.processes import ProcessUse

Kind = Literal["good", "broken", "leaving"]

# How long after a fault the server has to be as it was before.
RECOVERS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. status: HTTP's, `crowd.LEFT`, or one of `loadtest.sending.records` if there was no answer.

    named: the answer had the request's id. wrong: what was wrong with an answer, empty for nothing.
    """

    number: int
    kind: Kind
    due_s: float
    sent_s: float
    done_s: float
    status: int
    named: bool = False
    wrong: str = ""

    @property
    def is_right(self) -> bool:
        return self.status == 200 and not self.wrong

    @property
    def latency_ms(self) -> float:
        return (self.done_s - self.due_s) * 1e3


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault. end_s: when its cause was gone. excused: statuses that requests may have got because of it. missed: why
    it did not do what it is for; empty if it did."""

    name: str
    sign: str
    start_s: float
    end_s: float
    excused: frozenset[int] = frozenset()
    missed: str = ""

    @property
    def until_s(self) -> float:
        """From when on nothing is excused."""
        return self.end_s + RECOVERS_WITHIN_S

    def covers(self, start_s: float, end_s: float) -> bool:
        return start_s <= self.until_s and end_s >= self.start_s


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes at one moment."""

    at_s: float
    processes: Sequence[ProcessUse]


@dataclass(frozen=True, slots=True)
class Ended:
    """After SIGTERM. exit_status: None if the server did not end in time."""

    exit_status: int | None
    processes_left: Sequence[int]
    files_left: Sequence[str]
    # Statuses in the server's log, by the numbers of requests.
    logged: Mapping[int, Sequence[int]]
    tracebacks: int


@dataclass(frozen=True, slots=True)
class Record:
    """The whole run. offered_per_s: the rate of its timetable. capacity_per_s: measured before it."""

    seconds: float
    offered_per_s: float
    capacity_per_s: float
    outcomes: Sequence[Outcome]
    struck: Sequence[Struck]
    samples: Sequence[Sample]
    ended: Ended
    # What the machine lacks for some faults, and why.
    lacking: Mapping[str, str] = field(default_factory=dict)
