"""What an HTTP process has of each model: the engines' client, the decoder, the application. The newest is served."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from model.memory import settle_again
from service.http.app import create_app, forget_apps
from service.limits import Limits, ModelFacts
from service.loading import forget_tokenizers
from service.metrics import Metrics
from service.processes.exchange.remote import RemoteEngine
from service.processes.exchange.slab import Slab
from service.processes.messages import EngineDown, EngineUp, ServeModel, StartHttp
from service.processes.reloading.in_thread import in_thread
from service.processes.reloading.versions import Version, Versions
from service.requests.decoder import Decoder
from service.requests.text_reader import TextReader
from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

# The size of a slab over that of all rows that may be queued. Memory is taken as it is used.
_SLAB_ROOM = 1.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """All that one model has in this process."""

    version: Version
    client: RemoteEngine
    decoder: Decoder
    text_reader: TextReader | None

    @classmethod
    def of(
        cls, version: Version, client: RemoteEngine, slab: Slab, settings: Settings, *, before: Decoder | None
    ) -> Self:
        """before: the decoder of the model that is served."""
        model = client.model
        decoder = (
            before.of_model(model.geometry, rows=slab.rows)
            if before
            else Decoder.of(settings, model.geometry, rows=slab.rows)
        )
        return cls(version, client, decoder, TextReader.of(settings, model))

    def close_all_but_decoder(self) -> None:
        if self.text_reader:
            self.text_reader.close()


class Models:
    """Belongs to the event loop of the process, once that runs."""

    def __init__(
        self,
        start: StartHttp,
        settings: Settings,
        *,
        metrics: Metrics,
        draining: Callable[[], bool],
        tracing: "Tracing | None" = None,
    ) -> None:
        """start: names the first model."""
        self._start, self._settings, self._metrics, self._draining = start, settings, metrics, draining
        self._tracing = tracing
        # By the numbers of their models: those that take news of engines.
        self._clients: dict[int, RemoteEngine] = {}
        self._parts = self._built(*self._connected(start.served), before=None)
        self.versions = Versions(self._parts.version)

    def start(self) -> None:
        """Connects to the engines."""
        for client in self._clients.values():
            client.start()

    def heed(self, news: EngineUp | EngineDown) -> None:
        client = self._clients.get(news.model)
        match news:
            case EngineUp() if client:
                client.engine_up(news.engine, news.address)
            case EngineDown() if client:
                client.engine_down(news.engine, news.suspects, backing_off=news.backing_off, untrue=news.untrue)

    def look(self, patience_s: float) -> str | None:
        """Called twice a second by a thread: which engine should have been replaced, and was not."""
        silent = [engine for client in list(self._clients.values()) for engine in client.silent(patience_s)]
        if not silent:
            return None
        return f"engine-{silent[0]} has said nothing for long, and the parent does not replace it, so the server ends"

    async def serve(self, served: ServeModel) -> None:
        """Serves this model from now on. Returns when nothing uses the one before any more."""
        version, client, slab = self._connected(served)
        client.start()
        forget_tokenizers()
        # Reading a tokenizer takes seconds.
        parts = await in_thread(partial(self._built, version, client, slab, before=self._parts.decoder))
        before, self._parts = self._parts, parts
        retired = self.versions.replace(version)
        _log.info("serving %s", served.model.fingerprint)
        await retired.idle()
        del self._clients[retired.number]
        before.client.close()
        # Its decoder's threads are those of the next.
        await in_thread(before.close_all_but_decoder)
        del before, retired
        forget_apps()
        settle_again()

    def _connected(self, served: ServeModel) -> tuple[Version, RemoteEngine, Slab]:
        limits = Limits.of(self._settings, served.model)
        slab = Slab(_slab_bytes(limits, served.model))
        client = RemoteEngine(
            served.model,
            # With the pid: an earlier process of this name may have numbered its images alike.
            name=f"{self._start.name}:{os.getpid()}:{served.number}",
            engines=served.engines,
            secret=self._start.secret,
            slab=slab,
            metrics=self._metrics,
            max_abandoned_tokens=limits.max_queue_tokens,
        )
        self._clients[served.number] = client
        return Version(served.number), client, slab

    def _built(self, version: Version, client: RemoteEngine, slab: Slab, *, before: Decoder | None) -> _Parts:
        parts = _Parts.of(version, client, slab, self._settings, before=before)
        version.app = create_app(
            self._settings, client, parts.decoder, self._metrics, text_reader=parts.text_reader,
            draining=lambda: version.retired or self._draining(), tracing=self._tracing,
        )  # fmt: skip
        return parts

    def close(self) -> None:
        self._parts.close_all_but_decoder()
        self._parts.decoder.close()


def _slab_bytes(limits: Limits, model: ModelFacts) -> int:
    """Room for the rows of all that is let in, and for the gaps between them."""
    return int(_SLAB_ROOM * limits.max_queue_tokens) * 3 * model.patch_size**2
