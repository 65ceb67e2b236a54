"""Reloading in a server of one process: the new model is loaded and warmed beside the old one, in a thread."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from model.errors import ModelError
from model.memory import settle_again
from service.assembly import Assembly
from service.engine.cost.fit import CostModel
from service.engine.under_way import EngineWatch
from service.http.app import forget_apps
from service.limits import Limits, ModelFacts
from service.loading import forget_tokenizers, warm_up
from service.metrics import Metrics
from service.processes.child import Restarts
from service.processes.reloading.in_thread import in_thread
from service.processes.reloading.versions import Version, Versions
from service.settings.names import SettingsError
from service.settings.settings import Settings
from service.watching import tasks

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.tracing.spans import Tracing

    Load = Callable[[Settings], tuple[Runner, ModelFacts]]

# How long the first round of the canary may take after an engine that gave wrong vectors.
_PROVE_S = 600.0
# As a server of several processes does: one without an engine for so long ends, to be started again.
_NO_ENGINE_S = 300.0
# A device that has answered all requests has nothing left to do, unless it hangs.
_CLOSE_S = 10.0

_log = logging.getLogger(__name__)


class Reloader:
    """Builds what serves a model, and replaces it. Belongs to the event loop of the server once that runs.

    After an engine whose canary has failed, another serves only once its canary has passed.

    parts: of the served model. building: whether another is loaded or proven, by threads that the process does not wait
    for.
    """

    def __init__(
        self,
        settings: Settings,
        load: "Load",
        *,
        metrics: Metrics,
        watch: EngineWatch,
        draining: Callable[[], bool],
        tracing: "Tracing | None" = None,
    ) -> None:
        self._settings, self._load, self._metrics, self._watch = settings, load, metrics, watch
        self._draining, self._tracing = draining, tracing
        self._wanted = self.building = False
        self._task: asyncio.Task[None] | None = None
        self.parts: Assembly
        self.versions: Versions

    def begin(self, runner: "Runner", model: ModelFacts, cost: CostModel) -> None:
        """Serves this model first. Raises `SettingsError`."""
        self.parts, version = self._assembled(0, runner, model, cost)
        self.versions = Versions(version)

    def ask(self) -> None:
        """Loads the model again. If one is being loaded, once more afterwards."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = tasks.keep(self._run(), "reload")

    async def _run(self) -> None:
        restarts, began_s = Restarts(), time.monotonic()
        while self._wanted:
            self._wanted = False
            # If the loop ends meanwhile, a thread goes on.
            self.building = True
            await self._replace()
            self.building = False
            if self._untrue:
                # Nothing is served until one is right.
                await asyncio.sleep(restarts.delay_s(useful=False))
                self._wanted = True
                if time.monotonic() - began_s > _NO_ENGINE_S:
                    self._watch.lost()

    @property
    def _untrue(self) -> bool:
        return self.parts.engine.trust.untrue is not None

    async def _replace(self) -> None:
        before = self.parts.engine.model
        if untrue := self._untrue:
            _log.info("loading %s again; requests are refused meanwhile", self._settings.model)
            # Its threads have ended: the memory of its model is free for the next.
            await in_thread(partial(self.parts.engine.close, timeout_s=_CLOSE_S))
            settle_again()
        else:
            _log.info("loading %s again; the model that is served goes on meanwhile", self._settings.model)
        try:
            parts, version = await in_thread(lambda: self._built(self.versions.current.number + 1))
        except (ModelError, SettingsError) as error:
            _log.error("the reload has failed, and %s is served as before: %s", before.fingerprint, error)
            self._metrics.reloads.labels("failed").inc()
            return
        except Exception:
            # The memory may not hold both, and a checkpoint may be broken in any way.
            _log.exception("the reload has failed, and %s is served as before", before.fingerprint)
            self._metrics.reloads.labels("failed").inc()
            return
        if untrue and not await self._is_right(parts, before):
            await in_thread(partial(parts.close, timeout_s=_CLOSE_S))
            return
        old, self.parts = self.parts, parts
        retired = self.versions.replace(version)
        _log.info("serving %s in place of %s", parts.engine.model.fingerprint, before.fingerprint)
        if untrue:
            self._metrics.engine_restarts.labels("untrue").inc()
        else:
            self._metrics.reloads.labels("done").inc()
        await retired.idle()
        if not await in_thread(partial(old.close, timeout_s=_CLOSE_S)):
            _log.error("the device is still at work for the model before, whose memory stays taken")
        del old, retired
        forget_apps()
        settle_again()

    async def _is_right(self, parts: Assembly, before: ModelFacts) -> bool:
        """Whether these parts may take the place of an engine whose canary has failed."""
        if parts.engine.model.fingerprint != before.fingerprint:
            # Nobody has asked for another model.
            _log.error("%s was served, and there is %s now", before.fingerprint, parts.engine.model.fingerprint)
            return False
        return await in_thread(partial(parts.engine.prove, timeout_s=_PROVE_S))

    def _built(self, number: int) -> tuple[Assembly, Version]:
        """Everything that serves the model, with its engine running."""
        forget_tokenizers()
        runner, model = self._load(self._settings)
        if model.card:
            _log.info("%s is described in %s", model.name, model.card)
        _log.info("%s", model.summary)
        return self._assembled(number, runner, model, warm_up(runner, Limits.of(self._settings, model)))

    def _assembled(self, number: int, runner: "Runner", model: ModelFacts, cost: CostModel) -> tuple[Assembly, Version]:
        version = Version(number)
        parts = Assembly.of(
            self._settings, runner, model, cost=cost, watch=self._watch, metrics=self._metrics,
            draining=lambda: version.retired or self._draining(), tracing=self._tracing,
        )  # fmt: skip
        version.app = parts.app
        return parts, version
