"""Which ready host gets a try. A balancer knows what it sent, and which hosts were ready when it last looked."""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from loadtest.simulate.inputs import Balancing
from loadtest.simulate.server import Server

BALANCINGS: tuple[Balancing, ...] = get_args(Balancing)


class Balancer:
    """One balancer before all hosts. seen: the hosts that it believes to be ready."""

    def __init__(self, servers: Sequence[Server], balancing: Balancing, rng: np.random.Generator) -> None:
        self.seen = list(servers)
        self._rng, self._turn = rng, 0
        self._choose: Callable[[list[Server]], Server] = getattr(self, f"_{balancing}")

    def pick(self) -> Server | None:
        """None if no host is ready."""
        if len(self.seen) < 2:
            return self.seen[0] if self.seen else None
        return self._choose(self.seen)

    def leave(self, server: Server) -> None:
        if server in self.seen:
            self.seen.remove(server)

    def join(self, server: Server) -> None:
        if server not in self.seen:
            self.seen.append(server)

    def _round_robin(self, seen: list[Server]) -> Server:
        self._turn = (self._turn + 1) % len(seen)
        return seen[self._turn]

    def _random(self, seen: list[Server]) -> Server:
        return seen[int(self._rng.random() * len(seen))]

    def _two_choices(self, seen: list[Server]) -> Server:
        """The one with fewer requests of two random hosts: what Envoy's least-request does."""
        first, second = self._random(seen), self._random(seen)
        return first if len(first.held) <= len(second.held) else second

    def _least_requests(self, seen: list[Server]) -> Server:
        """Equals take turns, as they do in nginx."""
        return self._least(seen, lambda server: len(server.held))

    def _outstanding_tokens(self, seen: list[Server]) -> Server:
        return self._least(seen, lambda server: server.outstanding_tokens)

    def _least(self, seen: list[Server], load: Callable[[Server], int]) -> Server:
        self._turn = (self._turn + 1) % len(seen)
        return min(seen[self._turn :] + seen[: self._turn], key=load)
