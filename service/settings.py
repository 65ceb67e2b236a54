"""Every setting of Packlight: one frozen object, from `PACKLIGHT_*` in the environment and options on the command line.

A name that does not exist or a combination that cannot work refuses to start, naming it. What depends on the model or
the device (and is None here) is settled in `limits.py`.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.sizing.anyres import parse_pinpoints
from service.errors import validation_words

PREFIX = "PACKLIGHT_"

# Above this many pixels Pillow's own guard against decompression bombs steps in, which stays on.
_PILLOW_GUARD_PIXELS = 89_478_485

# An origin as a browser sends it: no path, no slash at its end.
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")

PositiveInt = Annotated[int, Field(ge=1)]


class SettingsError(Exception):
    """The settings as given cannot be started with. The message names each setting at fault."""


class Settings(BaseSettings):
    """Field order is the order of the table in docs/settings.md; each description is its line there."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    model: str = Field(
        "packlight-tiny", description="`packlight-tiny`, a folder of a checkpoint, or a Hugging Face hub id"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    devices: str = Field(
        "auto",
        description="`cpu`, `cuda`, `cuda:N` or several with commas, an engine process each; "
        "`auto` takes CUDA where there is a device",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto` is bfloat16 where the hardware does it fast, else float32"
    )
    attention: Literal["auto", "varlen", "products", "segmentwise"] = Field(
        "auto", description="attention backend; one that is named and missing refuses to start"
    )
    layout: str | None = Field(
        None, description="deprecated: packs are always packed, and this release still takes `packed` with a warning"
    )
    deterministic: bool = Field(
        False,
        description="on a GPU, where a vector's bits may depend on its pack: a forward for each image, so that they "
        "do not; on a CPU they never do, and packs stay as they are",
    )
    feature_layer: int | None = Field(
        None,
        description="layer of the vectors of `output=tokens`, as in Transformers' `hidden_states` (LLaVA takes -2; "
        "default: the last, after its norm)",
    )
    anyres_tile: PositiveInt | None = Field(
        None,
        description="side of an `anyres` tile in pixels (default: what a fixed model takes; for NaFlex the largest "
        "square within its own default cap, 256)",
    )
    anyres_pinpoints: Annotated[tuple[tuple[int, int], ...], NoDecode] = Field(
        (),
        description="sizes that `anyres` may tile, such as `336x672,672x336`, heights first (default: LLaVA-NeXT's "
        "five: 1×2, 2×1, 2×2, 3×1 and 1×3 tiles)",
    )
    engine: Literal["auto", "thread", "process"] = Field(
        "auto",
        description="where the device is driven from: a thread of the one server process, or a process of its own that "
        "is replaced when it dies; `auto` is a process where there is a CUDA device or more than one process anyway",
    )
    http_workers: PositiveInt = Field(
        1, description="processes that share the port and feed the engines; each has its share of every limit"
    )
    hang_after_s: Annotated[float, Field(ge=3)] = Field(
        10.0,
        description="an engine process silent for this long is replaced; a pack may take ten times what is expected",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated keys, one of which every route but `/livez` and `/readyz` then asks for"
    )
    api_keys_file: Path | None = Field(
        None, description="file of further keys, one a line; empty lines and those that begin with `#` are skipped"
    )
    metrics_open: bool = Field(False, description="`/metrics` asks for no key")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="comma-separated origins whose pages may ask from a browser, or `*` for any"
    )
    max_connections: PositiveInt = Field(512, description="most connections at once; beyond, 503")
    default_max_tokens: PositiveInt | None = Field(
        None, description="token cap of an image whose request gives none (default: the model's own, 256 for NaFlex)"
    )
    max_image_tokens: PositiveInt | None = Field(
        None,
        description="most tokens one image may use, whatever its request asks (default: 1,024; for a fixed model the "
        "largest that `anyres` may tile, thumbnail and four tiles; for Qwen-VL what its own `max_pixels` hold; never "
        "more than `max_batch_tokens`)",
    )
    max_batch_tokens: PositiveInt | None = Field(
        None,
        description="most tokens of one pack (default: 4,096 on a CPU, 16,384 on CUDA)",
    )
    max_queue_tokens: PositiveInt | None = Field(
        None, description="most tokens admitted and not yet answered; beyond, 429 (default: 8 × `max_batch_tokens`)"
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(
        0.0, description="how long the oldest image may wait for others before its pack runs"
    )
    max_images_per_request: PositiveInt = Field(64, description="most images in one request")
    max_upload_bytes: PositiveInt = Field(32 * 1024**2, description="most bytes of one request's body")
    max_inflight_bytes: PositiveInt = Field(
        256 * 1024**2, description="most bytes of bodies held at once, over all requests; beyond, 429"
    )
    max_decode_pixels: PositiveInt = Field(
        50_000_000, le=_PILLOW_GUARD_PIXELS, description="most pixels of an image that is decoded"
    )
    decode_threads: PositiveInt = Field(
        default_factory=lambda: os.cpu_count() or 1, description="threads that decode images (default: one a core)"
    )
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="how images are decoded where the request does not say; `fast` takes a fraction of the time for "
        "large JPEGs, and gives slightly other vectors, with a fingerprint of their own",
    )
    upload_timeout_ms: PositiveInt = Field(20_000, description="how long a body may take to arrive; beyond, 408")
    default_timeout_ms: PositiveInt = Field(
        30_000, description="deadline of a request that gives no `timeout_ms`; beyond, 504"
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(30.0, description="how long SIGTERM lets accepted requests finish")
    log_format: Literal["text", "json"] = Field("text", description="one line a request, as text or as JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line to log")

    _keys_of_file: tuple[SecretStr, ...] = PrivateAttr(())

    def all_api_keys(self) -> list[str]:
        """The keys of `api_keys` and of `api_keys_file`, in the clear."""
        return [key.get_secret_value() for key in (*self.api_keys, *self._keys_of_file)]

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys = tuple(key.strip() for key in value.split(",") if key.strip())
        if not keys or not value.isascii():
            raise ValueError("keys are separated by commas, in ASCII, and there is at least one")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = tuple(origin.strip() for origin in value.split(",") if origin.strip())
        if not origins or not all(map(_ORIGIN.fullmatch, origins)):
            raise ValueError("origins are separated by commas, each as https://host or https://host:port, or it is *")
        return origins

    @field_validator("anyres_pinpoints", mode="before")
    @classmethod
    def _split_pinpoints(cls, value: Any) -> Any:
        return parse_pinpoints(value) if isinstance(value, str) else value

    @field_validator("layout")
    @classmethod
    def _check_layout(cls, value: str | None) -> str | None:
        if value not in (None, "packed"):
            raise ValueError("packs are always packed; `python -m loadtest.bench layouts` compares that with padding")
        return value

    @model_validator(mode="after")
    def _read_keys_file(self) -> Self:
        if self.api_keys_file is not None:
            self._keys_of_file = _keys_in(self.api_keys_file)
        return self

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        largest = self.max_image_tokens or 0
        if self.max_batch_tokens and largest > self.max_batch_tokens:
            raise ValueError(
                f"max_image_tokens ({largest}) is over max_batch_tokens ({self.max_batch_tokens}): "
                "an image of that size would fit no pack"
            )
        if self.max_queue_tokens and largest > self.max_queue_tokens:
            raise ValueError(
                f"max_image_tokens ({largest}) is over max_queue_tokens ({self.max_queue_tokens}): "
                "an image of that size could never be admitted"
            )
        if largest and self.default_max_tokens and self.default_max_tokens > largest:
            raise ValueError(f"default_max_tokens ({self.default_max_tokens}) is over max_image_tokens ({largest})")
        self._check_processes()
        return self

    def _check_processes(self) -> None:
        """What follows from there being several."""
        for name, value in (("http_workers", self.http_workers), ("devices", len(self.device_list))):
            if value > 1 and self.engine == "thread":
                raise ValueError(f"{name} asks for {value} processes, and engine is thread; it has to be process")
        if self.max_upload_bytes > self.max_inflight_bytes // self.http_workers:
            raise ValueError(
                f"max_upload_bytes ({self.max_upload_bytes}) is over max_inflight_bytes ({self.max_inflight_bytes})"
                f"{self.shared}: a body of that size could never be received"
            )

    @property
    def shared(self) -> str:
        """What follows a limit that is refused: of several processes each has a part."""
        return f" / http_workers ({self.http_workers})" if self.http_workers > 1 else ""

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
        """All of it in plain values, of which another process makes the same settings whatever its environment says.

        The one place where keys leave as they are: to a child that compares them, over a channel that nobody else has.
        """
        keys = self.all_api_keys() if with_keys else []
        return self.model_dump(mode="json") | {"api_keys": keys, "api_keys_file": None}

    def share(self) -> "Settings":
        """What one of `http_workers` may take of the limits that are kept in its memory."""
        return self.model_copy(
            update={
                "max_inflight_bytes": self.max_inflight_bytes // self.http_workers,
                "max_connections": max(1, self.max_connections // self.http_workers),
                "decode_threads": max(1, self.decode_threads // self.http_workers),
            }
        )


def _has_nvidia_device() -> bool:
    """Without torch, which the process that asks never loads. `/dev/dxg` is WSL's."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def _keys_in(path: Path) -> tuple[SecretStr, ...]:
    """The keys of a file. Raises `ValueError`, which shows the file's name and nothing of what is in it."""
    what = f"{named('api_keys_file')} is '{path}'"
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise ValueError(f"{what}: {error.strerror or 'it cannot be read'}") from None
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise ValueError(f"{what}: there is no key in it")
    if not all(key.isascii() and key.decode("ascii").isprintable() for key in keys):
        raise ValueError(f"{what}: keys are printable ASCII, one a line")
    return tuple(SecretStr(key.decode("ascii")) for key in keys)


def load_settings(options: Mapping[str, Any], *, names: Iterable[str] = os.environ) -> Settings:
    """Settings from `options` (by field name; None: not given) before the environment. Raises `SettingsError`.

    `names`, those of the environment, are searched for unknown `PACKLIGHT_*`, which pydantic-settings would pass over
    in silence.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(unknown)}")
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_explained(details) for details in error.errors())) from None


def _explained(details: Any) -> str:
    message = validation_words(details)
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    # A key is never shown, not even a wrong one.
    value = "" if name == "api_keys" else f" is {details['input']!r}"
    return f"{named(name)}{value}: {message}"


def named(name: str) -> str:
    """A setting under each of its names."""
    return f"{name} ({PREFIX}{name.upper()}, {option(name)})"


def option(name: str) -> str:
    """The command-line option of a setting."""
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """Adds an option for each named setting. Values stay strings: they are read as the environment's are."""
    for name in names:
        field = Settings.model_fields[name]
        help_text = (field.description or "").replace("`", "").replace("%", "%%")
        parser.add_argument(option(name), dest=name, default=None, help=help_text, metavar="VALUE")


def table() -> str:
    """The table of docs/settings.md, in Markdown."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in (None, ()) else f"`{field.default}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path) -> None:
    """Puts the table between its two markers."""
    before, start, rest = page.read_text(encoding="utf-8").partition("<!-- settings: make settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    page.write_text(before + start + table() + end + after, encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
