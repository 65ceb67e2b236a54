"""Reads how the server is doing, for the next line of `/stats`."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from service.engine.client import EngineClient
from service.http.stats.figures import rates_of, stages_of
from service.http.stats.line import QueueLine, StatsLine, pack_lines
from service.http.stats.totals import Totals, read_gauges, read_totals
from service.limits import Limits
from service.metrics import STAGES, Metrics
from service.settings.settings import Settings

# Rates and latencies are of so many seconds, and newly read after so many.
_WINDOW_S = 10.0
_READ_EVERY_S = 2.0


class StatsReader:
    """Keeps what was counted in the last seconds. Begun anew when somebody listens again."""

    def __init__(
        self,
        client: EngineClient,
        limits: Limits,
        metrics: Metrics,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._limits, self._metrics, self._clock = client, limits, metrics, clock
        # Here are the limits of one HTTP process, and the figures are of all.
        self._max_queue_tokens = limits.max_queue_tokens * settings.http_workers
        self._max_inflight_bytes = settings.max_inflight_bytes * settings.http_workers
        self._counted: deque[tuple[float, Totals]] = deque()

    def forget(self) -> None:
        """What was counted before would make the next rates those of a long time."""
        self._counted.clear()

    async def read(self) -> StatsLine:
        """With the last packs of all devices."""
        # Devices in other processes answer while the files are read; what comes later is in the next line.
        self._client.refresh_packs()
        if not self._counted or self._clock() - self._counted[-1][0] >= _READ_EVERY_S:
            self._keep(await asyncio.to_thread(read_totals, self._metrics))
        gauges = read_gauges(self._metrics)
        now_s = self._clock()
        (before_s, before), (after_s, after) = self._counted[0], self._counted[-1]
        over_s = after_s - before_s
        return StatsLine(
            full=True,
            at=round(time.time(), 3),
            ready=self._client.any_device_ready,
            all_ready=self._client.all_devices_ready,
            max_batch_tokens=self._limits.max_batch_tokens,
            queue=self._queue(gauges),
            rates=rates_of(before, after, over_s) if over_s > 0 else None,
            stages=stages_of(before, after, STAGES),
            packs=pack_lines(self._client.packs, since_epoch_s=time.time() - now_s),
        )

    def _keep(self, totals: Totals) -> None:
        now_s = self._clock()
        self._counted.append((now_s, totals))
        while now_s - self._counted[0][0] > _WINDOW_S and len(self._counted) > 1:
            self._counted.popleft()

    def _queue(self, gauges: Totals) -> QueueLine:
        return QueueLine(
            tokens=round(gauges.get(("packlight_queue_tokens",), 0.0)),
            max_tokens=self._max_queue_tokens,
            items=round(gauges.get(("packlight_queue_images",), 0.0)),
            inflight_bytes=round(gauges.get(("packlight_inflight_bytes",), 0.0)),
            max_inflight_bytes=self._max_inflight_bytes,
        )
