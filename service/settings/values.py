"""From what a setting says to its value, and what refuses one."""

import re
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from service.settings.names import SettingsError, named

# An origin as a browser sends it: no path and no slash at its end.
ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")

CACHE_URL = re.compile(r"(rediss?|valkeys?|unix)://.")

# Of a collector.
ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+/?")


def parts_of(value: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def keys_in(name: str, path: Path) -> tuple[SecretStr, ...]:
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


def tracing_is_installed() -> bool:
    """Whether the packages of the extra `tracing` are there. Loads none of them."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False
