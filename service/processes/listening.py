"""The socket that a server listens on, bound before its model is loaded.

Apart from `server`, because the parent of several processes loads no HTTP framework.
"""

import fcntl
import logging
import socket
from urllib.parse import urlsplit

from service.settings.names import SettingsError

_BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet. Raises `SettingsError` if the address is not free."""
    if host.count(":") == 1:  # no IPv6 address has one
        raise SettingsError(f"host ({host}) is an address alone; the port has a setting of its own (port, --port)")
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


def page_of(address: str) -> str:
    """Where a browser on this machine finds the page of a server that listens on `address`, its URL.

    An address that stands for all of the machine's is no host that one can open everywhere.
    """
    url = urlsplit(address)
    host = "localhost" if url.hostname in ("0.0.0.0", "::") else url.netloc.rpartition(":")[0]
    return f"http://{host}:{url.port}/"


def announce(log: logging.Logger, address: str) -> None:
    """Says in the log that the server is ready, and where its page is."""
    log.info("ready on %s", address, extra={"fields": {"page": page_of(address)}})


def listen(listening: socket.socket) -> None:
    """Takes connections from now on. Raises `SettingsError` and closes the socket if another server came first."""
    try:
        listening.listen(_BACKLOG)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        listening.close()
        raise SettingsError(f"cannot listen on {host}:{port} (host, port): {error.strerror or error}") from None
