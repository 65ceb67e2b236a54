"""A whole server in one process, put together: the model on its device, the engine's thread, the application."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from prometheus_client import disable_created_metrics
from starlette.types import ASGIApp

from service.canary.background import canary_of
from service.engine.cost.fit import CostModel
from service.engine.cost.samples import CostSamples
from service.engine.device import device_of
from service.engine.engine import Engine
from service.engine.under_way import EngineWatch
from service.http.app import create_app
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.decoder import Decoder
from service.requests.text_reader import TextReader
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.tracing.spans import Tracing


def new_metrics() -> Metrics:
    """The metrics of a server of one process."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return Metrics()


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts. `close` ends them."""

    app: ASGIApp
    engine: Engine
    metrics: Metrics
    decoder: Decoder
    text_reader: TextReader | None

    @classmethod
    def of(
        cls,
        settings: Settings,
        runner: "Runner",
        model: ModelFacts,
        *,
        cost: CostModel,
        watch: EngineWatch,
        draining: Callable[[], bool],
        metrics: Metrics | None = None,
        tracing: "Tracing | None" = None,
    ) -> Self:
        """cost: what warming up has shown. metrics: those of the process, by default new ones. tracing: None if
        requests are not traced. Raises `SettingsError`."""
        limits = Limits.of(settings, model)
        metrics = metrics or new_metrics()
        engine = Engine(
            device_of(runner), model, limits, metrics=metrics, cost=cost, watch=watch,
            canary=canary_of(settings, model, limits, metrics), samples=CostSamples(model.geometry, limits),
        )  # fmt: skip
        decoder = Decoder.of(settings, model.geometry)
        text_reader = TextReader.of(settings, model)
        app = create_app(
            settings, engine, decoder, metrics, text_reader=text_reader, draining=draining, tracing=tracing
        )
        return cls(app, engine, metrics, decoder, text_reader)

    def close(self, *, timeout_s: float) -> bool:
        """False if the device is still at work then."""
        self.decoder.close()
        if self.text_reader:
            self.text_reader.close()
        return self.engine.close(timeout_s=timeout_s)
