"""One line of `/stats`: its shape, which the OpenAPI page shows, and how it is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.engine.pack_log import KEPT_PACKS, PackReport
from service.http.stats.figures import Rates, StageTimes


@dataclass(frozen=True, slots=True)
class PackLine:
    """One pack that has run, as sizes alone.

    id: no other pack of this server has it; `Packlight-Packs` of an answer names it. device: which of the devices ran
    it, from 0. ended_at: seconds since 1970 by the server's clock. images: for each image the tokens of its segments.
    texts: the tokens of each text. left_out: images and texts not listed, because a pack holds very many. tokens: of
    all of them. computed_tokens: by the device, filler included. longest_tokens, cap_tokens: what padding each to the
    longest, or to its cap, would have computed. pack_ms, forward_ms: to arrange it on the host, and to run it.
    """

    id: str
    device: int
    ended_at: float
    images: Sequence[Sequence[int]]
    texts: Sequence[int]
    left_out: int
    tokens: int
    computed_tokens: int
    longest_tokens: int
    cap_tokens: int
    pack_ms: float
    forward_ms: float


@dataclass(frozen=True, slots=True)
class QueueLine:
    """tokens: admitted and not yet answered. max_tokens: beyond, 429. items: images and texts waiting for a pack."""

    tokens: int
    max_tokens: int
    items: int
    inflight_bytes: int
    max_inflight_bytes: int


@dataclass(frozen=True, slots=True)
class StatsLine:
    """full: the packs are the last ones, not only those since the line before. It is so in the first line, and after a
    line that came too late to be sent. at: seconds since 1970. ready: any device answers. all_ready: all of them do.
    rates: None for the first two seconds in which anybody listens. stages: by name, None if it did not run lately."""

    full: bool
    at: float
    ready: bool
    all_ready: bool
    max_batch_tokens: int
    queue: QueueLine
    rates: Rates | None
    stages: dict[str, StageTimes | None]
    packs: Sequence[PackLine]


def pack_lines(devices: Sequence[Iterable[PackReport]], *, since_epoch_s: float) -> list[PackLine]:
    """The last packs of all devices, the oldest first. since_epoch_s: the time in 1970's seconds at which
    `time.monotonic` was 0."""
    reports = sorted(
        ((report.ended_s, device, report) for device, packs in enumerate(devices) for report in packs),
        key=lambda each: each[:2],
    )
    return [_pack_line(device, report, since_epoch_s) for _, device, report in reports[-KEPT_PACKS:]]


def _pack_line(device: int, report: PackReport, since_epoch_s: float) -> PackLine:
    return PackLine(
        id=report.id,
        device=device,
        ended_at=round(report.ended_s + since_epoch_s, 3),
        images=report.images,
        texts=report.texts,
        left_out=report.left_out,
        tokens=report.tokens,
        computed_tokens=report.computed_tokens,
        longest_tokens=report.longest_tokens,
        cap_tokens=report.cap_tokens,
        pack_ms=round(report.pack_s * 1000, 3),
        forward_ms=round(report.forward_s * 1000, 3),
    )
