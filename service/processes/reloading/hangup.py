"""SIGHUP: what asks for a reload."""

import asyncio
import os
import signal
from collections.abc import Callable


def on_hangup(reload: Callable[[], None], stop: Callable[[], None]) -> None:
    """Calls `reload` on the running event loop at every SIGHUP, and `stop` if it came because the server's terminal is
    gone. Where SIGHUP is ignored, as nohup leaves it, it stays ignored."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = _has_terminal()

    def heard() -> None:
        if had_terminal and not _has_terminal():
            stop()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
