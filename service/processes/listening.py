"""The socket that a server will listen on, taken before its model is loaded."""

import fcntl
import socket

from service.settings import SettingsError

_BACKLOG = 2048


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
    if listening.fileno() <= 2:
        # Started without standard streams, a process gives its first socket their number, and children theirs in turn.
        descriptor = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        listening.close()
        return socket.socket(fileno=descriptor)
    return listening


def listen(listening: socket.socket) -> None:
    """From now on it is this server's, whoever else is bound to it. Raises `SettingsError`."""
    try:
        listening.listen(_BACKLOG)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        raise SettingsError(f"cannot listen on {host}:{port} (host, port): {error.strerror or error}") from None
