"""One frozen object with every setting, checked alone and together.

An impossible combination refuses to start and names the settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, SecretStr, field_validator, model_validator

from model.sizing.anyres import parse_pinpoints
from service.fetching.allowlist import parse_entry
from service.settings.fields import SettingsFields
from service.settings.names import SettingsError
from service.settings.values import CACHE_URL, ENDPOINT, ORIGIN, keys_in, parts_of, tracing_is_installed

# A limit, another that has to contain it, and what would follow if it did not.
_CONTAINED = (
    ("max_image_tokens", "max_batch_tokens", ": an image of that size would fit no pack"),
    ("max_image_tokens", "max_queue_tokens", ": an image of that size could never be admitted"),
    ("default_max_tokens", "max_image_tokens", ""),
)


class Settings(SettingsFields):
    """What the server, its processes and the command line are made from."""

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
        keys = parts_of(value)
        if not keys or not value.isascii():
            raise ValueError("keys are separated by commas, in ASCII, and there is at least one")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = parts_of(value)
        if not origins or not all(map(ORIGIN.fullmatch, origins)):
            raise ValueError("origins are separated by commas, each as https://host or https://host:port, or it is *")
        return origins

    @field_validator("model_aliases", "url_allowlist", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return parts_of(value) if isinstance(value, str) else value

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
            if not ENDPOINT.fullmatch(value):
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
        if value is not None and not CACHE_URL.match(value.get_secret_value()):
            raise ValueError("it begins with redis://, rediss://, valkey://, valkeys:// or unix://")
        return value

    @model_validator(mode="after")
    def _read_keys_file(self) -> Self:
        if self.api_keys_file is not None:
            self._keys_of_file = keys_in("api_keys_file", self.api_keys_file)
        if self.bulk_keys_file is not None:
            self._bulk_keys_of_file = keys_in("bulk_keys_file", self.bulk_keys_file)
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


def _has_nvidia_device() -> bool:
    """Asks without torch, which the parent of several processes never loads. `/dev/dxg` is WSL's."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))
