"""Lets a test list and end the threads and tasks of any process of a server, at SIGUSR2.

Python runs the handler in the main thread, where the event loop is. It reads a command from a file of that process,
and answers in another.
"""

import asyncio
import ctypes
import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any


class Ended(BaseException):
    """What a test raises in a thread, so that the thread ends."""


def heed(*_: Any) -> None:
    folder = Path(os.environ["TEST_ENDINGS"])
    kind, name = json.loads((folder / f"{os.getpid()}.command").read_text())
    answer = folder / f"{os.getpid()}.answer"
    answer.with_suffix(".partial").write_text(json.dumps(done(kind, name)))
    answer.with_suffix(".partial").rename(answer)


def done(kind: str, name: str) -> Any:
    from model import threads

    loop = asyncio._get_running_loop()
    tasks = asyncio.all_tasks(loop) if loop else set()
    if kind == "list":
        kept = {thread.ident for thread in threads.kept()}
        running = [[each.name, each.ident in kept] for each in threading.enumerate()]
        return {"threads": running, "tasks": [task.get_name() for task in tasks]}
    if (kind, name) == ("thread", "MainThread"):
        # Loops hand other exceptions to whom they work for.
        raise KeyboardInterrupt
    if kind == "thread":
        for thread in threading.enumerate():
            if thread.name.partition("_")[0] == name:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Ended))
        if name == "log":
            # It ends once it runs, and it waits for a line.
            logging.getLogger("test").warning("a line")
    elif kind == "hold":
        threading.Event().wait()
    else:
        assert loop is not None
        for task in tasks:
            if task.get_name() == name:
                loop.call_soon_threadsafe(task.cancel)
    return None


if "TEST_ENDINGS" in os.environ:
    signal.signal(signal.SIGUSR2, heed)
