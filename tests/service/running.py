"""A real server on a real socket in a thread of the tests, with parts that do as a test says; how to speak to it."""

import asyncio
import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import httpx
import numpy as np
from numpy.typing import NDArray
from starlette.types import ASGIApp, Receive, Scope, Send

from model.images.decode import DecodeMode, ImageHeader, decode_patches, read_header
from model.pack import PackedBatch, PackedDocuments, PackedTexts, pack
from model.running.output import RunnerOutput
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, plan_image
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.engine.forward import PackRunner
from service.fetching.resolver import Resolver
from service.http.app import create_app
from service.http.protocol.server import Server, config_of
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.decoder import Decoder
from service.requests.text_reader import TextReader
from service.requests.url_images import UrlImages
from service.settings.settings import Settings
from service.tracing import current
from service.tracing.switch import tracing_of
from tests.waiting import PATIENCE_S as PATIENCE_S
from tests.waiting import until as until

NAFLEX = Geometry.for_naflex(16, 256)


class NoTexts:
    """What a fake runner of images alone is made from."""

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        raise AssertionError("this runner was given texts")

    def run_documents(self, documents: PackedDocuments) -> RunnerOutput:
        raise AssertionError("this runner was given documents")


@dataclass
class Recorder:
    """A real runner that keeps what it was given and what it computed, and can be made to wait or to fail.

    entered: set when a pack begins. free: packs wait for it. fault: raised in place of running.
    """

    runner: PackRunner
    packs: list[list[int]] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)
    fault: BaseException | None = None

    def __post_init__(self) -> None:
        self.free.set()

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self._enter()
        return self._record(batch, self.runner.run(batch, tokens=tokens))

    def _enter(self) -> None:
        self.entered.set()
        assert self.free.wait(PATIENCE_S), "a test forgot to let the runner go"
        if self.fault is not None:
            raise self.fault

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        return self._record(batch, self.runner.run_texts(batch))

    def run_documents(self, documents: PackedDocuments) -> RunnerOutput:
        self._enter()
        return self._record(documents, self.runner.run_documents(documents))

    def _record(self, batch: PackedBatch | PackedTexts | PackedDocuments, output: RunnerOutput) -> RunnerOutput:
        self.packs.append(np.diff(batch.cu_seqlens).tolist())
        self.computed.append(output.computed_tokens)
        return output

    def hold(self) -> None:
        """Packs wait from now on, until `free` is set."""
        self.entered.clear()
        self.free.clear()


class CountingDecoder(Decoder):
    """Counts the images whose pixels it is asked for; `fault` is raised in place of decoding; headers wait."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.decodes = 0
        self.fault: Exception | None = None
        self.headers_free = threading.Event()
        self.headers_free.set()

    def plain_header(self, data: bytes) -> ImageHeader | None:
        return super().plain_header(data) if self.headers_free.is_set() else None

    async def header(self, data: bytes) -> ImageHeader:
        await asyncio.to_thread(self.headers_free.wait, PATIENCE_S)
        return await super().header(data)

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        self.decodes += 1
        if self.fault is not None:
            raise self.fault
        return await super().patches(data, plan, decode)


class UnderWay:
    """An application that knows how many of its requests have not ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.requests -= 1


class _Announcing(Server):
    """Says when it listens, and where."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


@dataclass(frozen=True)
class Running:
    """A server that runs, and the parts of it that tests look into."""

    port: int
    settings: Settings
    facts: ModelFacts
    runner: Recorder
    engine: Engine
    decoder: CountingDecoder
    metrics: Metrics
    http: httpx.Client
    under_way: UnderWay

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        # A test that waits for a value asks again and again: of all metrics only this one is computed.
        families = self.metrics.registry.restricted_registry([f"packlight_{name}"]).collect()
        found = (sample for family in families for sample in family.samples)
        wanted = labels.items()
        return sum(each.value for each in found if wanted <= each.labels.items())

    def counted(self, name: str, **labels: str) -> float:
        """The metric once every request that was begun has ended: requests, their times and their tokens are counted
        after the answer."""
        until(self.is_quiet)
        return self.metric(name, **labels)

    def embed(self, image: bytes, **parameters: object) -> httpx.Response:
        """One raw image."""
        return self.http.post("/embed", content=image, params=_strings(parameters), headers={"Content-Type": "image/*"})

    def embed_form(self, images: Sequence[bytes], **parameters: object) -> httpx.Response:
        files = [("image", (f"{number}.png", image, "image/png")) for number, image in enumerate(images)]
        return self.http.post("/embed", files=files, data=_strings(parameters))

    def embed_json(self, **content: object) -> httpx.Response:
        return self.http.post("/embed", json=content)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def is_empty(self) -> bool:
        """Nothing is promised to any request."""
        return not any(map(self.metric, ("queue_tokens", "queue_images", "inflight_bytes")))

    def is_quiet(self) -> bool:
        """Every request has ended, so it is counted and logged."""
        return self.under_way.requests == 0


def _strings(values: dict[str, object]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


@contextmanager
def serving(
    loaded: tuple[Runner, ModelFacts],
    *,
    draining: Callable[[], bool] = lambda: False,
    resolver: Resolver | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A server with the given settings; `loaded` is shared by all of them, as no two run at a time. resolver: of the
    hosts of URLs, by default the system's."""
    runner, facts = Recorder(loaded[0]), loaded[1]
    chosen = Settings(**({"port": 0, "decode_threads": 2} | settings))
    metrics = Metrics()
    limits = Limits.of(chosen, facts)
    engine = Engine(HostDevice(runner), facts, limits, metrics=metrics)
    decoder = CountingDecoder.of(chosen, facts.geometry)
    text_reader = TextReader.of(chosen, facts)
    tracing = tracing_of(chosen, metrics, environ={})
    url_images = UrlImages.of(chosen, metrics, resolver=resolver, trace_headers=current.outgoing.get)
    app = create_app(
        chosen, engine, decoder, metrics, text_reader=text_reader, url_images=url_images, draining=draining,
        tracing=tracing,
    )  # fmt: skip
    under_way = UnderWay(app)
    server = _Announcing(config_of(under_way, chosen, metrics))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    assert server.listening.wait(PATIENCE_S)
    limit = httpx.Limits(max_connections=None)
    # Nothing is encrypted. To read the authorities that it would trust takes as long as to make a server.
    http_client = httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S, limits=limit, trust_env=False, verify=False
    )
    try:
        with http_client:
            yield Running(server.port, chosen, facts, runner, engine, decoder, metrics, http_client, under_way)
    finally:
        runner.free.set()
        decoder.headers_free.set()
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)
        engine.close(timeout_s=10)
        decoder.close()
        if text_reader:
            text_reader.close()
        if tracing:
            tracing.close()
        assert not thread.is_alive()


@cache
def no_urls() -> UrlImages:
    """Fetches nothing. One for all: to read the settings and to make the metrics takes longer than to read a body."""
    return UrlImages.of(Settings(), Metrics())


def plan_of(image: bytes, token_cap: int) -> ImagePlan:
    header = read_header(image, max_decode_pixels=10**8)
    return plan_image(header.size, geometry=NAFLEX, budget=Budget.of_tokens(token_cap, 16), strategy="naflex")


def alone(runner: Runner, image: bytes, token_cap: int, decode: DecodeMode = "exact") -> RunnerOutput:
    """What an image gets in a pack of its own."""
    plan = plan_of(image, token_cap)
    plan, rows = decode_patches(image, plan, geometry=NAFLEX, max_decode_pixels=10**8, decode=decode)
    return runner.run(pack([rows], [plan.segments[0].grid]), tokens=True)


def raw_request(body: bytes, *headers: str, path: str = "/embed", kind: str = "image/*") -> bytes:
    """A POST with its length announced, unless the headers say how it is sent."""
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        headers = (*headers, f"Content-Length: {len(body)}")
    head = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Type: {kind}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def read_answer(connection: socket.socket) -> tuple[http.client.HTTPResponse, bytes]:
    """One answer from a connection, which may go on sending. What has come behind the answer already is lost."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer, answer.read()


def send_until_cut(connection: socket.socket, piece: bytes, pieces: int) -> int:
    """Sends `piece` again and again and returns how many bytes the system took before the connection was closed."""
    sent = 0
    with suppress(OSError):
        for _ in range(pieces):
            connection.sendall(piece)
            sent += len(piece)
    return sent


def error_of(response: httpx.Response) -> tuple[int, str, str | None, int | None]:
    """Status, code, param and index; the message is not empty. OpenAI's dialect has a type beside them."""
    error = response.json()["error"]
    assert error["message"]
    assert set(error) - {"type"} == {"code", "message", "param", "index"}
    return response.status_code, error["code"], error["param"], error["index"]


def load_npy(content: bytes) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], np.load(io.BytesIO(content)))
