"""One host: an HTTP process, the service's own admission, threads that decode, engines."""

from collections.abc import Callable
from enum import Enum
from typing import cast

import numpy as np

from loadtest.simulate.cores import Cores, Lane
from loadtest.simulate.demand import Kind, Picture
from loadtest.simulate.engine import Engine, Item
from loadtest.simulate.events import Events
from loadtest.simulate.inputs import Costs, Host
from service.engine.client import EngineClient
from service.errors import Overloaded
from service.limits import Limits
from service.metrics import Metrics
from service.requests.admission.admission import Admission


class State(Enum):
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


class Answer(Enum):
    """How one try of a request ended."""

    OK = 200
    REFUSED = 429
    UNREADY = 503
    LATE = 504
    BROKEN = -2  # the connection: its host died


class Try:
    """One request as a server sees it, from its arrival there to its answer. deadline_s: by the clock of the events."""

    __slots__ = ("answer", "deadline_s", "ended", "held_bytes", "held_tokens", "items", "kind", "left", "undecoded")

    def __init__(self, kind: Kind, deadline_s: float, answer: "Callable[[Try, Answer, float], None]") -> None:
        """answer: is called once, with the outcome and the seconds of its `Retry-After`."""
        self.kind, self.deadline_s, self.answer = kind, deadline_s, answer
        self.left = self.undecoded = len(kind.pictures)
        self.held_tokens = self.held_bytes = 0
        self.items: list[tuple[Engine, Item]] = []
        self.ended = False


class Server:
    """Takes tries while it is ready, and forgets them all when it dies."""

    def __init__(self, events: Events, host: Host, costs: Costs, metrics: Metrics, rng: np.random.Generator) -> None:
        """metrics: admission counts into them; servers may share one."""
        self._events, self._host, self._costs = events, host, costs
        self.cores = Cores(events, host.cores)
        self._http = Lane(self.cores, host.http_workers)
        self._decoding = Lane(self.cores, host.decode_threads or host.cores)
        self.engines = [
            Engine(events, self.cores, host, costs.pack, rng, done=self._ran, late=self._late)
            for _ in range(host.engines)
        ]
        self._metrics = metrics
        self.admission = self._new_admission()
        self.state = State.READY
        self.held: dict[Try, None] = {}  # the tries without an answer, in order of arrival
        self.outstanding_tokens = 0  # of those
        self._drained: Callable[[], None] | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """What admission asks for, as the `EngineClient` of a server with one or several engines has it."""
        return sum(engine.tokens_per_s or 0.0 for engine in self.engines) or None

    def receive(self, one: Try) -> None:
        """A host that is gone answers nothing: the try waits until somebody calls `break_off`."""
        self.held[one] = None
        self.outstanding_tokens += one.kind.tokens
        if self.state is not State.DOWN:
            self._http.submit(self._http_s(one) / 2, self._admit, one)

    def drain(self, drained: Callable[[], None]) -> None:
        """Accepts nothing more, and calls `drained` once everything is answered, or after `drain_s`."""
        self.state = State.DRAINING
        self._drained = drained
        self._events.after(self._host.drain_s, self._end_drain, drained)
        self._look_drained()

    def die(self) -> None:
        """All that it held is lost, and nobody knows yet."""
        self.state = State.DOWN
        for one in self.held:
            one.ended = True
        self.cores.clear()
        self._http.clear()
        self._decoding.clear()
        for engine in self.engines:
            engine.die()
        self.admission = self._new_admission()

    def break_off(self) -> None:
        """Connections to a host that is gone end."""
        held, self.held, self.outstanding_tokens = list(self.held), {}, 0
        for one in held:
            one.ended = True
            one.answer(one, Answer.BROKEN, 0.0)

    def start(self) -> None:
        self.state = State.READY

    def _new_admission(self) -> Admission:
        host = self._host
        limits = Limits(
            host.default_max_tokens, host.max_image_tokens, host.max_batch_tokens,
            host.max_queue_tokens or 8 * host.max_batch_tokens,
        )  # fmt: skip
        client = cast(EngineClient, self)  # it is asked for `tokens_per_s` alone
        return Admission(
            limits, max_inflight_bytes=host.max_inflight_bytes, upload_timeout_s=20.0, client=client,
            metrics=self._metrics, clock=lambda: self._events.now_s,
        )  # fmt: skip

    def _http_s(self, one: Try) -> float:
        return self._costs.http_s + self._costs.http_image_s * (len(one.kind.pictures) - 1)

    def _admit(self, one: Try) -> None:
        try:
            self.admission.take_bytes(one.kind.bytes)
            one.held_bytes = one.kind.bytes
            self.admission.take_tokens(one.kind.tokens, within_s=one.deadline_s - self._events.now_s)
        except Overloaded as refusal:
            self._end(one, Answer.REFUSED, refusal.retry_after_s)
            return
        one.held_tokens = one.kind.tokens
        for picture in one.kind.pictures:
            self._decoding.submit(picture.decode_s, self._decoded, (one, picture))

    def _decoded(self, what: tuple[Try, Picture]) -> None:
        one, _ = what
        one.undecoded -= 1
        if not one.undecoded and not one.ended:
            self.admission.give_back(size=one.held_bytes)
            one.held_bytes = 0
        if not one.ended:
            self._events.after(self._costs.link_s / 2, self._queue, what)

    def _queue(self, what: tuple[Try, Picture]) -> None:
        one, picture = what
        if one.ended:
            return
        engine = min(self.engines, key=lambda each: each.outstanding_tokens)
        item = Item(picture.tokens, one, arrived_s=self._events.now_s, deadline_s=one.deadline_s)
        one.items.append((engine, item))
        engine.add(item)

    def _ran(self, item: Item) -> None:
        self._events.after(self._costs.link_s / 2, self._item_done, item.owner)

    def _item_done(self, one: Try) -> None:
        one.left -= 1
        if not one.left and not one.ended:
            self._http.submit(self._http_s(one) / 2, self._sent, one)

    def _late(self, item: Item) -> None:
        one = cast(Try, item.owner)
        if not one.ended:
            self._end(one, Answer.LATE)

    def _sent(self, one: Try) -> None:
        if not one.ended:
            self._end(one, Answer.OK)

    def _end(self, one: Try, answer: Answer, retry_after_s: float = 0.0) -> None:
        """Gives back what the try holds, and answers it."""
        one.ended = True
        if answer is not Answer.OK:
            for engine, item in one.items:
                engine.drop(item)
        self.admission.give_back(tokens=one.held_tokens, size=one.held_bytes)
        del self.held[one]
        self.outstanding_tokens -= one.kind.tokens
        one.answer(one, answer, retry_after_s)
        self._look_drained()

    def _look_drained(self) -> None:
        if self._drained is not None and not self.held:
            self._end_drain(self._drained)

    def _end_drain(self, drained: Callable[[], None]) -> None:
        if self._drained is drained:
            self._drained = None
            self.die()
            self.break_off()
            drained()
