"""The socket that a server listens on, bound before its model is loaded.

Apart from `server`, because the parent of several processes loads no HTTP framework.
"""

import fcntl
import socket

from service.settings import SettingsError

_BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet. Raises `SettingsError` if the address is not free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingsError(f"cannot listen on {host}:{port} (host, port): {error.strerror or error}") from None
    if listening.fileno() <= 2:
        # In a process that was started without standard streams a socket may get one of their numbers, and a child's
        # standard streams would replace it.
        descriptor = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        listening.close()
        return socket.socket(fileno=descriptor)
    return listening


def listen(listening: socket.socket) -> None:
    """Takes connections from now on. Raises `SettingsError` and closes the socket if another server came first."""
    try:
        listening.listen(_BACKLOG)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        listening.close()
        raise SettingsError(f"cannot listen on {host}:{port} (host, port): {error.strerror or error}") from None
