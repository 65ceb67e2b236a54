"""Every setting of Packlight: one frozen object, from `PACKLIGHT_*` in the environment and options on the command line.

An unknown name or an impossible combination refuses to start and names the setting. A setting that depends on the model
or the device is None here; `limits.py` fills it in.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.kernels.hardware import usable_cores
from model.sizing.anyres import parse_pinpoints
from service.errors import validation_words
from service.fetching.allowlist import parse_entry

PREFIX = "PACKLIGHT_"

# Pillow's own guard against decompression bombs, which stays on, refuses more pixels than this.
_PILLOW_GUARD_PIXELS = 89_478_485

# An origin as a browser sends it: no path and no slash at its end.
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")

_CACHE_URL = re.compile(r"(rediss?|valkeys?|unix)://.")

# Of a collector.
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+/?")

# A limit, another that has to contain it, and what would follow if it did not.
_CONTAINED = (
    ("max_image_tokens", "max_batch_tokens", ": an image of that size would fit no pack"),
    ("max_image_tokens", "max_queue_tokens", ": an image of that size could never be admitted"),
    ("default_max_tokens", "max_image_tokens", ""),
)

PositiveInt = Annotated[int, Field(ge=1)]


class SettingsError(ValueError):
    """The server cannot start with these settings. The message names each setting at fault."""


class Settings(BaseSettings):
    """The fields stand in the order of the table in docs/settings.md; each description is its line there."""

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
    max_connections: PositiveInt = Field(512, description="most connections at once; beyond, 503")
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
        "429",
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

    _keys_of_file: tuple[SecretStr, ...] = PrivateAttr(())
    _bulk_keys_of_file: tuple[SecretStr, ...] = PrivateAttr(())

    def all_api_keys(self) -> list[str]:
        """The keys of `api_keys` and of `api_keys_file`, in the clear."""
        return [key.get_secret_value() for key in (*self.api_keys, *self._keys_of_file)]

    def all_bulk_keys(self) -> list[str]:
        """The keys of `bulk_keys` and of `bulk_keys_file`, in the clear."""
        return [key.get_secret_value() for key in (*self.bulk_keys, *self._bulk_keys_of_file)]

    @property
    def keyed(self) -> bool:
        """Whether requests need a key."""
        return bool(self.all_api_keys() or self.all_bulk_keys())

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        # The name goes into every answer, and safetensors opens no other files.
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it is not UTF-8; name a link to that folder") from None
        return value

    @field_validator("api_keys", "bulk_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys = _parts(value)
        if not keys or not value.isascii():
            raise ValueError("keys are separated by commas, in ASCII, and there is at least one")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = _parts(value)
        if not origins or not all(map(_ORIGIN.fullmatch, origins)):
            raise ValueError("origins are separated by commas, each as https://host or https://host:port, or it is *")
        return origins

    @field_validator("model_aliases", "url_allowlist", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("url_allowlist")
    @classmethod
    def _check_allowlist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            parse_entry(entry)
        return value

    @field_validator("anyres_pinpoints", mode="before")
    @classmethod
    def _split_pinpoints(cls, value: Any) -> Any:
        return parse_pinpoints(value) if isinstance(value, str) else value

    @field_validator("tracing_endpoint")
    @classmethod
    def _check_tracing_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            if not _ENDPOINT.fullmatch(value):
                raise ValueError("it is http://host:port or https://host:port, as http://localhost:4317")
            if not tracing_is_installed():
                raise ValueError("traces need OpenTelemetry: pip install 'packlight[tracing]'")
        return value

    @field_validator("layout")
    @classmethod
    def _check_layout(cls, value: str | None) -> str | None:
        if value not in (None, "packed"):
            raise ValueError("packs are always packed; `python -m loadtest.bench layouts` compares that with padding")
        return value

    @field_validator("cache_url")
    @classmethod
    def _check_cache_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _CACHE_URL.match(value.get_secret_value()):
            raise ValueError("it begins with redis://, rediss://, valkey://, valkeys:// or unix://")
        return value

    @model_validator(mode="after")
    def _read_keys_file(self) -> Self:
        if self.api_keys_file is not None:
            self._keys_of_file = _keys_in("api_keys_file", self.api_keys_file)
        if self.bulk_keys_file is not None:
            self._bulk_keys_of_file = _keys_in("bulk_keys_file", self.bulk_keys_file)
        if {*self.all_api_keys()} & {*self.all_bulk_keys()}:
            raise SettingsError("a key of bulk_keys is one of api_keys too: its requests cannot be of both classes")
        return self

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        self.check_tokens(dict(self))
        for name, count in (("http_workers", self.http_workers), ("devices", len(self.device_list))):
            if count > 1 and self.engine == "thread":
                raise SettingsError(f"{name} asks for {count} processes, and engine is thread; it has to be process")
        if self.max_upload_bytes > self.max_inflight_bytes // self.http_workers:
            raise SettingsError(
                f"max_upload_bytes ({self.max_upload_bytes}) is over max_inflight_bytes ({self.max_inflight_bytes})"
                f"{self._divided}: a body of that size could never be received"
            )
        return self

    def check_tokens(self, limits: Mapping[str, Any], *, notes: Mapping[str, str] | None = None) -> None:
        """Raises `SettingsError` if one limit in tokens is over another that has to contain it.

        limits: by name, None if not known. notes: what the message says of a limit beside its value.
        """
        for name, container, consequence in _CONTAINED:
            value, most = limits[name], limits[container]
            processes, divided = (self.http_workers, self._divided) if container == "max_queue_tokens" else (1, "")
            if value and most and value > most // processes:
                note = (notes or {}).get(container, "")
                raise SettingsError(f"{name} ({value}) is over {container} ({most}{note}){divided}{consequence}")

    @property
    def _divided(self) -> str:
        """What a message says of a limit that HTTP processes divide among them."""
        return f" / http_workers ({self.http_workers})" if self.http_workers > 1 else ""

    @property
    def remembers(self) -> bool:
        """Whether vectors of pictures seen are kept, here or in a store."""
        return self.cache_bytes > 0 or self.cache_url is not None

    @property
    def device_list(self) -> list[str]:
        """One engine each."""
        return [device.strip() for device in self.devices.split(",")]

    @property
    def in_processes(self) -> bool:
        """Whether the device has a process of its own."""
        several = self.http_workers > 1 or len(self.device_list) > 1
        cuda = "cuda" in self.devices or (self.devices == "auto" and _has_nvidia_device())
        return self.engine == "process" or (self.engine == "auto" and (several or cuda))

    def for_child(self, *, with_keys: bool) -> dict[str, Any]:
        """Plain values from which another process makes the same settings, whatever its environment says.

        Only here do keys leave in the clear: for a child that compares them, over a channel that nobody else has.
        """
        keys = self.all_api_keys() if with_keys else []
        bulk_keys = self.all_bulk_keys() if with_keys else []
        url = self.cache_url.get_secret_value() if with_keys and self.cache_url else None
        own = {"api_keys": keys, "api_keys_file": None, "bulk_keys": bulk_keys, "bulk_keys_file": None}
        return self.model_dump(mode="json") | own | {"cache_url": url}

    def for_one_worker(self) -> Self:
        """The settings of one of `http_workers`: the limits that each keeps in its own memory are divided."""
        return self.model_copy(
            update={
                "max_inflight_bytes": self.max_inflight_bytes // self.http_workers,
                "cache_bytes": self.cache_bytes // self.http_workers,
                "max_connections": max(1, self.max_connections // self.http_workers),
                "decode_threads": max(1, self.decode_threads // self.http_workers),
                "max_url_fetches": max(1, self.max_url_fetches // self.http_workers),
            }
        )


def _parts(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _has_nvidia_device() -> bool:
    """Asks without torch, which the parent of several processes never loads. `/dev/dxg` is WSL's."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def tracing_is_installed() -> bool:
    """Whether the packages of the extra `tracing` are there. Loads none of them."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False


def _keys_in(name: str, path: Path) -> tuple[SecretStr, ...]:
    """The keys of a file. Raises `SettingsError`, which shows the file's name and nothing of its content."""
    what = f"{named(name)} is '{path}'"
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise SettingsError(f"{what}: {error.strerror or 'it cannot be read'}") from None
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise SettingsError(f"{what}: there is no key in it")
    if not all(key.isascii() and key.decode("ascii").isprintable() for key in keys):
        raise SettingsError(f"{what}: keys are printable ASCII, one a line")
    return tuple(SecretStr(key.decode("ascii")) for key in keys)


def load_settings(options: Mapping[str, Any], *, names: Iterable[str] = os.environ) -> Settings:
    """Settings from `options` (by field name; None: not given), then the environment. Raises `SettingsError`.

    names: those of the environment. An unknown `PACKLIGHT_*` among them is refused; pydantic-settings would ignore it.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(unknown)}")
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_explained(details) for details in error.errors())) from None


def _explained(details: Mapping[str, Any]) -> str:
    message = validation_words(details)
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    # A key is never shown, not even a wrong one.
    value = "" if name in ("api_keys", "bulk_keys", "cache_url") else f" is {details['input']!r}"
    return f"{named(name)}{value}: {message}"


def named(name: str) -> str:
    """A setting under each of its names."""
    return f"{name} ({PREFIX}{name.upper()}, {option(name)})"


def option(name: str) -> str:
    """The command-line option of a setting."""
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Adds an option for each named setting. Values stay strings and are read as the environment's are."""
    for name in names:
        field = Settings.model_fields[name]
        help_text = (field.description or "").replace("`", "").replace("%", "%%")
        parser.add_argument(option(name), dest=name, default=None, help=help_text, metavar="VALUE")


def table() -> str:
    """The table of docs/settings.md, in Markdown."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in (None, ()) else f"`{shown(field.default)}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def shown(default: object) -> str:
    """A default as it is written in the environment."""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def write_table(page: Path) -> None:
    """Puts the table between its two markers."""
    before, start, rest = page.read_text(encoding="utf-8").partition("<!-- settings: make settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    page.write_text(before + start + table() + end + after, encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
