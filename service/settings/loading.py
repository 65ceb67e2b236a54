"""Settings from `PACKLIGHT_*` in the environment and options on the command line."""

import argparse
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.errors import validation_words
from service.settings.names import PREFIX, SettingsError, named, option
from service.settings.settings import Settings

# How alike a name must be to one that is, to be taken for a slip.
_ALIKE = 0.8


def load_settings(options: Mapping[str, Any], *, names: Iterable[str] = os.environ) -> Settings:
    """Settings from `options` (by field name; None: not given), then the environment. Raises `SettingsError`.

    names: those of the environment. An unknown `PACKLIGHT_*` among them is refused; pydantic-settings would ignore it.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(_with_nearest(name) for name in unknown)}")
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_explained(details) for details in error.errors())) from None


def _with_nearest(name: str) -> str:
    """A name that is none, and what was probably meant."""
    near = get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields, 1, _ALIKE)
    return f"{name} (did you mean {PREFIX}{near[0].upper()}?)" if near else name


def _explained(details: Mapping[str, Any]) -> str:
    message = validation_words(details)
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    # A key is never shown, not even a wrong one.
    value = "" if name in ("api_keys", "bulk_keys", "cache_url") else f" is {details['input']!r}"
    return f"{named(name)}{value}: {message}"


def add_options(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Adds an option for each named setting. Values stay strings and are read as the environment's are."""
    for name in names:
        field = Settings.model_fields[name]
        default = default_of(field)
        help_text = f"{field.description}{default and f' (default: {default})'}".replace("`", "").replace("%", "%%")
        parser.add_argument(option(name), dest=name, default=None, help=help_text, metavar=_choices(field))


def default_of(field: FieldInfo) -> str:
    """As it is written in the environment; empty if there is none, or if it depends on something."""
    return "" if field.default_factory or field.default in (None, ()) else shown(field.default)


def shown(default: object) -> str:
    """A default as it is written in the environment."""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _choices(field: FieldInfo) -> str:
    """What an option takes, if it is one of a few words."""
    if field.annotation is bool:
        return "true|false"
    return "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else "VALUE"
