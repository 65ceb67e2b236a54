"""Packages that only some jobs need, and the extras that bring them."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.settings.names import SettingsError

_EXTRAS = {"pyarrow": "tables", "lance": "lance", "ray": "ray"}


@contextmanager
def needed(module: str, what: str) -> Iterator[None]:
    """Around an import. Raises `SettingsError` that names the extra if `module` is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise SettingsError(
            f"{what} needs the package {missing}, which is not installed: pip install 'packlight[{_EXTRAS[module]}]'"
        ) from None
