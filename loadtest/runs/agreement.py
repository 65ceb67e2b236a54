"""Do the server's counts agree with the client's? This module compares them and measures nothing.

The counts cover every request of the run, those of ramp and warm-up too, since the server knows no window.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loadtest.runs.server_view import ServerView
from loadtest.sending.records import Records
from loadtest.words import counted


@dataclass(frozen=True, slots=True)
class Check:
    """One count from both ends. `remark` says what may have caused a difference."""

    name: str
    client: float
    server: float
    remark: str

    @property
    def agrees(self) -> bool:
        return self.client == self.server


def check(records: Records, server: ServerView) -> list[Check]:
    """A check for each count that both ends keep."""
    ok = records.where(records.ok)
    unheard = int(np.count_nonzero((records.status < 0) & ~np.isnan(records.sent_s)))
    statuses = _statuses(records)
    pairs: list[tuple[str, float, float | None]] = [
        (f"requests answered {status}", statuses.get(status, 0), server.requests.get(status, 0))
        for status in sorted({*statuses, *server.requests})
    ]
    if (ok.images >= 0).all():
        # A text counts as an image on this side.
        name = "images and texts answered" if server.texts else "images answered"
        pairs.append((name, float(ok.images.sum()), server.embedded))
    if (ok.tokens >= 0).all():
        pairs.append(("tokens charged", float(ok.tokens.sum()), server.charged_tokens))
        name = "tokens computed or cached" if server.cached_tokens else "tokens computed"
        pairs.append((name, float(ok.tokens.sum()), server.computed_tokens + server.cached_tokens))
    return [
        Check(name, client, seen, _remark(client, seen, unheard, server.restarted))
        for name, client, seen in pairs
        if seen is not None
    ]


def _statuses(records: Records) -> Mapping[str, int]:
    heard = records.status[records.status > 0]
    return {str(status): int(np.count_nonzero(heard == status)) for status in np.unique(heard)}


def _remark(client: float, server: float, unheard: int, restarted: bool) -> str:
    if client == server:
        return ""
    if restarted:
        return "the server's counters went back: it restarted during the run"
    if server > client and unheard:
        return f"{counted(unheard, 'request')} got no answer but may be in the server's counts"
    if server > client:
        return "the server counted more: someone else uses it, or it did work twice"
    return "the server counted less: is /metrics that of one replica among several?"
