"""The socket that a server will listen on, taken before its model is loaded."""

import socket

from service.settings import SettingsError


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet. Raises `SettingsError` for an address that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingsError(f"cannot listen on {host}:{port} (host, port): {error.strerror or error}") from None
    return listening
