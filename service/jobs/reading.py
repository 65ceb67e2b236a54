"""The bytes of one image file, and no more of them than there is room for."""

import errno
import os
import stat
from pathlib import Path


def size_of(path: Path) -> int | None:
    """The bytes of a file; None for a pipe, which does not say. 0 for what cannot be asked, which cannot be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read_file(path: Path, most_bytes: int) -> bytes:
    """All bytes of the file. Raises `OSError`, also for a file of more than `most_bytes`."""
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except ValueError:  # a name with a NUL
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, too_large(most_bytes))
    return data


def too_large(most_bytes: int) -> str:
    """Why a file is not read that would hold more than the job holds at once."""
    return f"the file holds more than {most_bytes:,} bytes; a larger --ahead-bytes reads it"
