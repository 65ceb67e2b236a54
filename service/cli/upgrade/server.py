"""A server that `packlight upgrade-check` asks for what it serves and for vectors of pictures."""

import base64
import io
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit, urlunsplit

import httpcore2 as httpcore
import numpy as np
from numpy.typing import NDArray

from service.priority import PRIORITY_HEADER
from service.settings.names import SettingsError

# Seconds for one answer; a busy server is asked again for as long.
_PATIENCE_S = 120.0
_BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class Vector:
    """embedding: float32 `[E]` of length 1. fingerprint: as the answer names it."""

    embedding: NDArray[np.float32]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that has no vector there. reason: the server's."""

    reason: str


class RemoteServer:
    """Many threads may use it at once. info: the answer of `/info`.

    Everything raises `SettingsError`, which names the URL, if the server cannot be asked.
    """

    def __init__(self, url: str, parameters: dict[str, str]) -> None:
        """url: may bring a key as its password. parameters: of every request for a vector."""
        parts = _parts_of(url)
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._headers = {"Host": host}
        if parts.password is not None:
            key = base64.b64encode(f"any:{unquote(parts.password)}".encode()).decode()
            self._headers["Authorization"] = f"Basic {key}"
        self._query = f"?{urlencode(parameters)}" if parameters else ""
        self._pool = httpcore.ConnectionPool(max_connections=None)
        try:
            self.info = self._read_info()
        except SettingsError:
            self.close()
            raise

    @property
    def summary(self) -> str:
        """The model and its device, in a few words."""
        return "{name}, {dtype} on {device}".format_map(self.info["model"])

    def _read_info(self) -> dict[str, Any]:
        answer = self._ask("GET", "/info")
        if answer.status != 200:
            raise SettingsError(f"{self.url}/info: {_message(answer)}")
        try:
            info: dict[str, Any] = json.loads(answer.content)
            if {"name", "dtype", "device"} <= info["model"].keys():
                return info
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise SettingsError(f"{self.url}/info is not that of a Packlight server")

    def embed(self, picture: bytes, **parameters: str) -> Vector | Refused:
        """parameters: in place of those of every request."""
        query = f"?{urlencode(parameters)}" if parameters else self._query
        # Nobody waits for one picture. A server of an earlier version ignores the class.
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/x-npy", PRIORITY_HEADER: "bulk"}
        answer = self._ask("POST", f"/embed{query}", headers, picture)
        if answer.status == 200:
            named = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
            (embedding,) = np.load(io.BytesIO(answer.content))
            return Vector(embedding, named[b"x-fingerprint"])
        if answer.status in (413, 415, 422):
            return Refused(_message(answer))
        raise SettingsError(f"{self.url}/embed: {_message(answer)}")

    def text(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        answer = self._ask("GET", path)
        return answer.status, answer.content.decode("utf-8", "replace")

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None, content: bytes = b"") -> Any:
        """The answer, once the server has room."""
        until_s = time.monotonic() + _PATIENCE_S
        own = [*(self._headers | {"Content-Length": str(len(content))} | (headers or {})).items()]
        patience = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), _PATIENCE_S)}
        while True:
            try:
                answer = self._pool.request(method, self.url + path, headers=own, content=content, extensions=patience)
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
                raise SettingsError(f"{self.url} cannot be asked: {error or type(error).__name__}") from None
            retry = dict(answer.headers).get(b"retry-after", b"")
            if answer.status not in _BUSY or not retry.isdigit() or time.monotonic() + int(retry) > until_s:
                return answer
            time.sleep(int(retry))

    def close(self) -> None:
        self._pool.close()


def _parts_of(url: str) -> SplitResult:
    """Raises `SettingsError`."""
    with suppress(ValueError):
        parts = urlsplit(url)
        # A port beyond 65535 shows when it is read.
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise SettingsError(f"{url} is no URL of a server, such as http://127.0.0.1:8000")


def _message(answer: Any) -> str:
    """What an error says, or its status."""
    try:
        return str(json.loads(answer.content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"
