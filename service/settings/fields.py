"""The settings, one by one. A default of None depends on the model or the device; `limits.py` fills it in."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.kernels.hardware import usable_cores
from service.settings.names import PREFIX

# Pillow's own guard against decompression bombs, which stays on, refuses more pixels than this.
_PILLOW_GUARD_PIXELS = 89_478_485

PositiveInt = Annotated[int, Field(ge=1)]


class SettingsFields(BaseSettings):
    """They stand in the order of the table in docs/settings.md; each description is its line there."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    model: str = Field("packlight-tiny", description="`packlight-tiny`, a checkpoint folder, or a Hugging Face hub id")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        ("default/not-specified",),
        description="comma-separated names beside its own that requests may call the model by; the default is what "
        "infinity's clients send",
    )
    devices: str = Field(
        "auto",
        description="`cpu`, `cuda`, `cuda:N`, or several separated by commas, each with an engine process of its own; "
        "`auto` takes CUDA if there is a device",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="`auto` is bfloat16 if the hardware multiplies it natively, otherwise float32; `int8` multiplies "
        "8-bit integers in the linear layers of blocks, on CPUs with VNNI alone",
    )
    attention: Literal["auto", "varlen", "products", "segmentwise"] = Field(
        "auto", description="attention backend; a named one that is not available refuses to start"
    )
    layout: str | None = Field(
        None, description="deprecated: packs are always packed, and this release still takes `packed` with a warning"
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, where a vector's bits may depend on its pack, run each image alone so that they do not; "
        "no effect on a CPU, where they never do",
    )
    feature_layer: int | None = Field(
        None,
        description="layer of the vectors of `output=tokens`, as in Transformers' `hidden_states`; LLaVA takes -2 "
        "(default: the last layer, after its norm)",
    )
    pooling: Literal["cls", "mean"] | None = Field(
        None,
        description="what an embedding of DINOv2 or DINOv3 is: `cls`, its class token, or `mean`, the mean of its "
        "patches (default: `cls`); refused for a model that leaves no choice",
    )
    anyres_tile: PositiveInt | None = Field(
        None,
        description="side of an `anyres` tile in pixels (default: the input of a fixed model; for NaFlex the largest "
        "square within its default cap, 256)",
    )
    anyres_pinpoints: Annotated[tuple[tuple[int, int], ...], NoDecode] = Field(
        (),
        description="sizes that `anyres` may tile, such as `336x672,672x336`, heights first (default: LLaVA-NeXT's "
        "five: 1×2, 2×1, 2×2, 3×1 and 1×3 tiles)",
    )
    engine: Literal["auto", "thread", "process"] = Field(
        "auto",
        description="what drives the device: a thread of the server process, or a process of its own that is replaced "
        "when it dies; `auto` is `process` with CUDA, several devices or several HTTP processes",
    )
    http_workers: PositiveInt = Field(
        1, description="HTTP processes that listen on the port and feed the engines; limits are divided among them"
    )
    hang_after_s: Annotated[float, Field(ge=3)] = Field(
        10.0,
        description="an engine or HTTP process that is silent for this long is replaced, and one whose event loop is "
        "held; a pack may take ten times its predicted time",
    )
    canary_interval_s: Annotated[float, Field(ge=0)] = Field(
        30.0,
        description="how often pictures with known vectors run on each device, which is replaced if it gives others; 0 "
        "never runs them",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="comma-separated keys; if there are any, every route requires one but `/livez`, `/readyz`, "
        "`/health`, `/ping`, `/.well-known/live`, `/.well-known/ready`, and the pages at `/` and `/docs` with their "
        "files and `/openapi.json`, which ask for the key of what they call",
    )
    api_keys_file: Path | None = Field(
        None, description="file of further keys, one a line; empty lines and lines that begin with `#` are skipped"
    )
    bulk_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated keys like those of `api_keys`, whose requests are all `bulk`"
    )
    bulk_keys_file: Path | None = Field(None, description="file of further keys for `bulk`, as `api_keys_file`")
    metrics_open: bool = Field(False, description="`/metrics` and `/stats` require no key")
    stats: Literal["on", "off"] = Field(
        "on", description="`/stats` tells of packs, queue and latencies as they are, at no cost while nobody listens"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated origins whose pages may send requests from a browser, or `*` for any"
    )
    max_connections: PositiveInt = Field(512, description="most connections at once; beyond, 503 but for health checks")
    default_max_tokens: PositiveInt | None = Field(
        None, description="token cap of an image if its request gives none (default: the model's own, 256 for NaFlex)"
    )
    max_image_tokens: PositiveInt | None = Field(
        None,
        description="most tokens of one image, whatever its request asks for (default: 1,024; for a fixed model the "
        "largest `anyres` layout, a thumbnail and four tiles; for Qwen-VL its own `max_pixels`; never more than "
        "`max_batch_tokens`)",
    )
    max_batch_tokens: PositiveInt | None = Field(
        None, description="most tokens of one pack (default: 4,096 on a CPU, 16,384 on CUDA)"
    )
    max_queue_tokens: PositiveInt | None = Field(
        None, description="most tokens admitted and not yet answered; beyond, 429 (default: 8 × `max_batch_tokens`)"
    )
    bulk_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25,
        description="what `bulk` requests have of the tokens of packs while `interactive` ones wait; no more of them "
        "goes into a pack with those",
    )
    max_bulk_batch_tokens: PositiveInt | None = Field(
        None,
        description="most tokens of a pack of `bulk` requests alone, for which an `interactive` one may have to wait "
        "(default: `max_batch_tokens`)",
    )
    interactive_queue_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25,
        description="share of `max_queue_tokens` and `max_inflight_bytes` that `bulk` requests cannot have; beyond, "
        "429; and of `max_url_fetches`, where they wait",
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="how long the oldest image may wait for others before its pack runs"
    )
    max_images_per_request: PositiveInt = Field(64, description="most images in one request")
    max_texts_per_request: PositiveInt = Field(2048, description="most texts in one request")
    max_text_chars: PositiveInt = Field(
        32_768, description="most characters of one text, which are read before it is cut to the model's tokens"
    )
    text_tower: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` takes texts if the model has a text tower and a tokenizer; `off` saves the tower's memory",
    )
    text_cleaning: Literal["transformers", "openai"] = Field(
        "transformers",
        description="how texts for CLIP are cleaned: as Transformers does, or as OpenAI's code and OpenCLIP do, with a "
        "fingerprint of its own",
    )
    int8_calibration: Path | None = Field(
        None,
        description="file of `packlight calibrate`, whose scale `embedding_type=int8` and `uint8` use (default: a "
        "fixed scale)",
    )
    max_upload_bytes: PositiveInt = Field(32 * 1024**2, description="most bytes of one request's body")
    max_inflight_bytes: PositiveInt = Field(
        256 * 1024**2, description="most bytes of bodies held at once, over all requests; beyond, 429"
    )
    allow_urls: Literal["off", "public"] = Field(
        "off",
        description="`public` fetches images from URLs of any public host, on the ports 80 and 443; `off` only from "
        "those of `url_allowlist`",
    )
    url_allowlist: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated hosts whose URLs are fetched: `images.example.com`, `*.example.com`, also with a "
        "scheme, a port or a path, and `private http://minio:9000` for one of a private network",
    )
    url_timeout_ms: PositiveInt = Field(
        10_000, description="how long the host of a URL may take to give its image; beyond, 422"
    )
    max_url_fetches: PositiveInt = Field(
        64,
        description="most images fetched from URLs at once, a quarter of them from one host or for one request; others "
        "wait",
    )
    max_decode_pixels: PositiveInt = Field(
        50_000_000, le=_PILLOW_GUARD_PIXELS, description="most pixels of an image that is decoded"
    )
    decode_threads: PositiveInt = Field(
        default_factory=usable_cores,
        description="threads that decode images, and most processes that decode for them (default: one for each core "
        "that the process may use)",
    )
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="how images are decoded if the request does not say; `fast` takes a fraction of the time for large "
        "JPEGs and gives slightly different vectors, with a fingerprint of their own",
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="memory for the vectors of pictures seen, which are answered without embedding them again; 0 "
        "remembers none",
    )
    cache_url: SecretStr | None = Field(
        None,
        description="`redis://host:6379/0` of a Redis or Valkey in which replicas share what they have seen (extra "
        "`packlight[cache]`)",
    )
    cache_ttl_s: PositiveInt = Field(604_800, description="how long the store of `cache_url` keeps a picture")
    cache_timeout_ms: PositiveInt = Field(
        20, description="how long a request waits for the store of `cache_url`; beyond, it goes on without it"
    )
    upload_timeout_ms: PositiveInt = Field(20_000, description="how long a body may take to arrive; beyond, 408")
    default_timeout_ms: PositiveInt = Field(
        30_000, description="deadline of a request that gives no `timeout_ms`; beyond, 504"
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="how long accepted requests may take to finish after SIGTERM"
    )
    tracing_endpoint: str | None = Field(
        None,
        description="where traces are sent, by OTLP over gRPC: `http://collector:4317`, or `https://` for TLS; needs "
        "`packlight[tracing]` (default: `OTEL_EXPORTER_OTLP_ENDPOINT`; without either requests are not traced)",
    )
    tracing_sample_ratio: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="the share of requests that are traced, of those whose caller has not decided by a `traceparent` "
        "(default: what `OTEL_TRACES_SAMPLER` says, otherwise 0.01)",
    )
    log_format: Literal["text", "json"] = Field("text", description="one line an event, as text or as JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line to log")
