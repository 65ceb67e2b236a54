"""What a setting is called, and what is raised for one that is wrong."""

PREFIX = "PACKLIGHT_"


class SettingsError(ValueError):
    """The server cannot start with these settings. The message names each setting at fault."""


def named(name: str) -> str:
    """A setting under each of its names."""
    return f"{name} ({PREFIX}{name.upper()}, {option(name)})"


def option(name: str) -> str:
    """The command-line option of a setting."""
    return f"--{name.replace('_', '-')}"
