"""A server ready for a load: its address, its prepared requests, its probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.sending.probe import Probe, base_url
from loadtest.traffic.bodies import Adapter, Wire
from loadtest.traffic.corpus import Corpus, first_of_each_class


@dataclass(frozen=True, slots=True)
class Target:
    """One server, and the corpus encoded for it."""

    url: str
    adapter: Adapter
    wires: Sequence[Wire]
    probe: Probe

    async def try_out(self, corpus: Corpus) -> dict[str, Any]:
        """Sends one request of every class, and the server must take them all. Returns its `/info`."""
        await self.probe.try_each([self.wires[place] for place in first_of_each_class(corpus)], corpus.classes)
        return await self.probe.info()


def prepare(url: str, adapter: Adapter, corpus: Corpus, *, timeout_s: float) -> Target:
    """Encodes every request of the corpus for one server."""
    address = base_url(url)
    wires = [adapter.wire(request) for request in corpus.requests]
    return Target(address, adapter, wires, Probe(address, headers=adapter.headers, timeout_s=timeout_s))
