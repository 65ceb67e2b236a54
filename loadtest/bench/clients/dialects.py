"""What a dialect costs a request beyond `/embed` with the same picture: as base64 in JSON, or in a form.

One keep-alive connection sends each body once a round, in an order of its own: a request's time depends on what came
before it, by more than a dialect costs. A row's `beyond_embed_ms` is the median, over all rounds, of its time minus
that of `/embed` with the same kind of body in the same round; `embed again` is the same request once more, and shows
what such a difference is worth here. `server_cpu_us` is the server's processor time a request. `read_us` is the part of
the dialect itself: from the parsed body to the request.
"""

import base64
import http.client
import io
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from PIL import Image

from loadtest.bench.servers.processes import cpu_s
from loadtest.bench.servers.running import Running, serving
from model.child_process import process_tree
from service.http.dialects.cohere import COHERE
from service.http.dialects.dialect import Body, Dialect, Served
from service.http.dialects.immich import IMMICH
from service.http.dialects.jina import JINA
from service.http.dialects.openai import OPENAI
from service.http.dialects.pooling import POOLING
from service.http.dialects.voyage import VOYAGE
from service.http.dialects.weaviate import WEAVIATE
from service.limits import Limits
from service.loading import load_runner
from service.settings.settings import Settings

_ROUNDS, _BLOCKS, _CALLS_A_BLOCK, _READS = 800, 5, 100, 2_000
# Small on the device, and of the bytes that a photo has.
_MAX_TOKENS, _SIDE_PIXELS = 16, 320


@dataclass(frozen=True)
class _Case:
    """dialect: None for `/embed`. body: from the picture's data URI, its JSON or the fields of its form. beside: the
    case that it is compared with."""

    name: str
    path: str
    body: Callable[[str], dict[str, Any]]
    dialect: Dialect | None = None
    beside: str = "embed"

    @property
    def is_form(self) -> bool:
        return self.beside == "embed form"

    def encoded(self, uri: str) -> tuple[bytes, str]:
        """The body, and its Content-Type."""
        content = self.body(uri)
        if not self.is_form:
            return orjson.dumps(content), "application/json"
        picture = base64.b64decode(uri.partition(",")[2])
        parts = [
            *(
                f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in content.items()
            ),
            '--x\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n\r\n',
        ]
        return "".join(parts).encode() + picture + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def _part(uri: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri}}


_CASES = (
    *(
        _Case(name, "/embed", lambda uri: {"images": [uri], "max_tokens": _MAX_TOKENS})
        for name in ("embed", "embed again")
    ),
    _Case("openai input", "/v1/embeddings", lambda uri: {"input": [uri], "max_tokens": _MAX_TOKENS}, OPENAI),
    _Case(
        "openai messages",
        "/v1/embeddings",
        lambda uri: {
            "messages": [{"role": "user", "content": [{"type": "text", "text": ""}, _part(uri)]}],
            "truncate_prompt_tokens": -1,
            "mm_processor_kwargs": {"max_num_patches": _MAX_TOKENS},
        },
        OPENAI,
    ),
    _Case("jina", "/v1/embeddings", lambda uri: {"input": [{"image": uri}], "max_tokens": _MAX_TOKENS}, JINA),
    _Case("pooling", "/pooling", lambda uri: {"input": [uri], "max_tokens": _MAX_TOKENS}, POOLING),
    _Case(
        "cohere",
        "/v2/embed",
        lambda uri: {"inputs": [{"content": [_part(uri)]}], "input_type": "image", "max_tokens": _MAX_TOKENS},
        COHERE,
    ),
    _Case(
        "voyage",
        "/v1/multimodalembeddings",
        lambda uri: {
            "inputs": [{"content": [{"type": "image_base64", "image_base64": uri}]}],
            "max_tokens": _MAX_TOKENS,
        },
        VOYAGE,
    ),
    # These two name no budget: the server's default is that of the others.
    _Case("weaviate", "/vectorize", lambda uri: {"images": [uri.partition(",")[2]]}, WEAVIATE),
    _Case("embed form", "/embed", lambda uri: {"max_tokens": _MAX_TOKENS}, beside="embed form"),
    _Case(
        "immich",
        "/predict",
        lambda uri: {"entries": '{"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}'},
        IMMICH,
        beside="embed form",
    ),
)


def measure() -> list[dict[str, object]]:
    """A row for each case."""
    uri = _photo()
    bodies = {case.name: case.encoded(uri) for case in _CASES}
    reads = _read_us(uri)
    with serving("--log-level", "warning", "--default-max-tokens", str(_MAX_TOKENS)) as server:
        took_ms = _took_ms(server, bodies)
        cpu_us = _cpu_us(server, bodies)
    return [
        {
            "case": case.name,
            "body_kb": round(len(bodies[case.name][0]) / 1000),
            "p50_ms": round(statistics.median(took_ms[case.name]), 3),
            "beyond_embed_ms": round(
                statistics.median(a - b for a, b in zip(took_ms[case.name], took_ms[case.beside], strict=True)), 3
            ),
            "server_cpu_us": round(cpu_us[case.name]),
            "read_us": reads.get(case.name, 0.0),
        }
        for case in _CASES
    ]


def _photo() -> str:
    """A picture whose file is as large as a photo's of four times its area."""
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE_PIXELS, _SIDE_PIXELS, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _took_ms(server: Running, bodies: dict[str, tuple[bytes, str]]) -> dict[str, list[float]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    took: dict[str, list[float]] = {case.name: [] for case in _CASES}
    order = random.Random(0)
    for _ in range(_ROUNDS):
        for case in order.sample(_CASES, len(_CASES)):
            began_s = time.perf_counter()
            _post(connection, case, bodies)
            took[case.name].append((time.perf_counter() - began_s) * 1000)
    connection.close()
    return took


def _cpu_us(server: Running, bodies: dict[str, tuple[bytes, str]]) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    pids = process_tree(server.pid)
    costs: dict[str, list[float]] = {case.name: [] for case in _CASES}
    for _ in range(_BLOCKS):
        for case in _CASES:
            before_s = cpu_s(pids)
            for _ in range(_CALLS_A_BLOCK):
                _post(connection, case, bodies)
            costs[case.name].append((cpu_s(pids) - before_s) / _CALLS_A_BLOCK * 1e6)
    connection.close()
    return {name: statistics.median(values) for name, values in costs.items()}


def _post(connection: http.client.HTTPConnection, case: _Case, bodies: dict[str, tuple[bytes, str]]) -> None:
    body, kind = bodies[case.name]
    connection.request("POST", case.path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{case.path} answered {answer.status}: {content[:300]!r}")


def _read_us(uri: str) -> dict[str, float]:
    """Median microseconds of a dialect's own reading."""
    settings = Settings(devices="cpu")
    _, facts = load_runner(settings)
    served = Served(facts, Limits.of(settings, facts), settings.decode)
    medians: dict[str, float] = {}
    for case in _CASES:
        if case.dialect is None:
            continue
        content = case.body(uri)
        spent: list[float] = []
        for _ in range(_READS):
            body = Body(content, form_images=int(case.is_form), path=case.path)
            began_s = time.perf_counter()
            case.dialect.read(body, served)
            spent.append((time.perf_counter() - began_s) * 1e6)
        medians[case.name] = round(statistics.median(spent), 1)
    return medians
