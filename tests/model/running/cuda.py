"""What is used of `torch.cuda`, where there is none: it runs everything at once, and keeps the order of it all."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RecordedCuda:
    """log: who did what, in the order in which the host asked for it."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.current = "none"
        self._streams = iter(("inward", "compute", "outward"))

    def Stream(self, device: torch.device) -> "_Stream":
        return _Stream(self, next(self._streams))

    def Event(self, *, enable_timing: bool = False) -> "_Event":
        return _Event(self)

    @contextmanager
    def stream(self, stream: "_Stream") -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    def synchronize(self, device: torch.device) -> None:
        self.note("host", "waits for all")

    def note(self, who: str, what: str) -> None:
        self.log.append((who, what))


class _Stream:
    def __init__(self, cuda: RecordedCuda, name: str) -> None:
        self._cuda, self.name = cuda, name

    def wait_event(self, event: "_Event") -> None:
        self._cuda.note(self.name, f"waits for {event.made_by}")


class _Event:
    def __init__(self, cuda: RecordedCuda) -> None:
        self._cuda = cuda
        self.made_by = "nobody"

    def record(self, stream: _Stream) -> None:
        assert self._cuda.current == stream.name
        self.made_by = stream.name
        self._cuda.note(stream.name, "event")

    def synchronize(self) -> None:
        self._cuda.note("host", f"waits for {self.made_by}")

    def elapsed_time(self, end: "_Event") -> float:
        return 2.5
