"""The keys that requests bring, and the paths that take none."""

import base64
import hmac

from starlette.datastructures import Headers

from service.errors import Unauthorized
from service.http.paths import FIGURES_PATHS, HEALTH_PATHS
from service.settings.settings import Settings

# Health checks come from machines without a key. The pages hold nothing secret, and ask for the key themselves.
_OPEN_PATHS = frozenset({*HEALTH_PATHS, "/", "/docs", "/openapi.json"})
_OPEN_FOLDERS = ("/pages/", "/docs/")


def open_paths(settings: Settings) -> frozenset[str]:
    """The routes that take no key, and do not stand in a folder of files."""
    return _OPEN_PATHS.union(FIGURES_PATHS) if settings.metrics_open else _OPEN_PATHS


class Keys:
    """The server's keys. Without any, every request passes."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [key.encode() for key in settings.all_api_keys()]
        self._bulk_keys = [key.encode() for key in settings.all_bulk_keys()]
        self._open_paths = open_paths(settings)

    def check(self, path: str, headers: Headers) -> bool:
        """Whether the key is one for bulk. Raises `Unauthorized`."""
        keyed = self._keys or self._bulk_keys
        if not keyed or path in self._open_paths or path.startswith(_OPEN_FOLDERS):
            return False
        given = _given_key(headers).strip().encode()
        # Comparing every key in constant time keeps the time from telling anything about them.
        of_all = sum(hmac.compare_digest(given, key) for key in self._keys)
        of_bulk = sum(hmac.compare_digest(given, key) for key in self._bulk_keys)
        if not of_all + of_bulk:
            raise Unauthorized("send one of the server's keys as Authorization: Bearer KEY or X-API-Key (api_keys)")
        return bool(of_bulk)


def _given_key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return token
        case "basic":
            return _password(token)
    return headers.get("x-api-key", "")


def _password(token: str) -> str:
    """The password of a URL, where some clients can only take a key; empty if it cannot be read."""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
