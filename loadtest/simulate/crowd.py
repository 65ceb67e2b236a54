"""Clients: each sends a request when it is due, and tries again as a well-behaved one does."""

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from functools import partial

import numpy as np

from loadtest.simulate.balancer import Balancer
from loadtest.simulate.demand import Kind
from loadtest.simulate.events import Events
from loadtest.simulate.inputs import Clients
from loadtest.simulate.server import Answer, Try
from loadtest.traffic.arrivals import Floats


class Fate(Enum):
    """How a request ended. PENDING: it has not."""

    PENDING = "pending"
    ANSWERED = "answered"
    REFUSED = "refused"  # by 429 or 503 at its last try
    LATE = "late"  # 504: it was admitted, and its deadline passed
    LOST = "lost"  # its host died at its last try


_FATES = {
    Answer.OK: Fate.ANSWERED, Answer.REFUSED: Fate.REFUSED, Answer.UNREADY: Fate.REFUSED, Answer.LATE: Fate.LATE,
    Answer.BROKEN: Fate.LOST,
}  # fmt: skip


class Crowd:
    """fates, done_s: of each request by its number. answers: of all tries."""

    def __init__(
        self, events: Events, balancer: Balancer, clients: Clients, *, kinds: Sequence[Kind], rng: np.random.Generator
    ) -> None:
        self._events, self._balancer, self._clients = events, balancer, clients
        self._kinds, self._rng = kinds, rng
        self._due_s: Sequence[float] = ()
        self.fates: list[Fate] = []
        self.done_s: list[float] = []
        self.kind_numbers: list[int] = []
        self.answers: Counter[Answer] = Counter()

    def send(self, due_s: Floats, kind_numbers: Sequence[int]) -> None:
        """Requests at these ascending times. Only the next one is in the heap of events, which keeps that small."""
        self._due_s, self.kind_numbers = due_s.tolist(), list(kind_numbers)
        self.fates = [Fate.PENDING] * len(self._due_s)
        self.done_s = [float("nan")] * len(self._due_s)
        if self._due_s:
            self._events.at(self._due_s[0], self._due, 0)

    def _due(self, number: int) -> None:
        if number + 1 < len(self._due_s):
            self._events.at(self._due_s[number + 1], self._due, number + 1)
        self._try((number, 1))

    def _try(self, what: tuple[int, int]) -> None:
        number, tries = what
        server = self._balancer.pick()
        kind = self._kinds[self.kind_numbers[number]]
        deadline_s = self._events.now_s + self._clients.timeout_s
        one = Try(kind, deadline_s, partial(self._answered, number, tries))
        if server is None:
            self._answered(number, tries, one, Answer.UNREADY, self._clients.unready_s)
        elif self._clients.network_s:
            self._events.after(self._clients.network_s / 2, server.receive, one)
        else:
            server.receive(one)

    def _answered(self, number: int, tries: int, one: Try, answer: Answer, retry_after_s: float) -> None:
        self.answers[answer] += 1
        if answer in (Answer.OK, Answer.LATE) or tries >= self._clients.tries:
            self.fates[number] = _FATES[answer]
            self.done_s[number] = self._events.now_s + self._clients.network_s / 2
        else:
            wait_s = retry_after_s * (1 + self._clients.jitter * self._rng.random())
            self._events.after(wait_s, self._try, (number, tries + 1))
