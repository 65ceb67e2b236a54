"""Finds the image files of a folder by their names."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from model.images.formats import heic

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""Suffixes, in lower case, of the formats in `model.images.container.FORMATS`."""


@dataclass(slots=True)
class FolderFiles:
    """The files in a folder and all folders below it.

    images: those with a suffix of a format that is read. others: the other files. unreadable: folders that cannot be
    listed, and links that lead nowhere, each with the reason.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def folder_files(folder: Path) -> FolderFiles:
    """Searches a folder. Links to folders are followed. A folder is searched once, however many links lead to it."""
    found = FolderFiles()
    suffixes = (*SUFFIXES, *heic.SUFFIXES) if heic.installed() else SUFFIXES
    # Links wait at the end, so that a folder that also lies in the tree keeps the path without a link.
    pending = deque([folder])
    searched: set[tuple[int, int]] = set()
    while pending:
        below = pending.popleft()
        try:
            status = below.stat()
            if (status.st_dev, status.st_ino) in searched:
                continue
            searched.add((status.st_dev, status.st_ino))
            entries = list(os.scandir(below))
        except OSError as error:
            found.unreadable.append((below, error.strerror or type(error).__name__))
            continue
        for entry in entries:
            _sort_in(entry, suffixes, pending, found)
    found.images.sort()
    found.others.sort()
    return found


def _sort_in(entry: os.DirEntry[str], suffixes: tuple[str, ...], pending: deque[Path], found: FolderFiles) -> None:
    path = Path(entry.path)
    # These are False for what cannot be asked, such as a link to itself. Pipes, sockets and devices are neither.
    if os.path.isdir(path):
        pending.append(path) if entry.is_symlink() else pending.appendleft(path)
    elif os.path.isfile(path):
        (found.images if path.suffix.lower() in suffixes else found.others).append(path)
    elif entry.is_symlink():
        found.unreadable.append((path, "the link leads nowhere"))


def image_files(folder: Path) -> list[Path]:
    """Image files in the folder and all folders below it, sorted by path."""
    return folder_files(folder).images
