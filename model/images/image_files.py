"""Which files of a folder are images, by their names alone."""

from pathlib import Path

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""How names end, in lower case, of files in the formats of `model.images.decode.FORMATS`."""


def image_files(folder: Path) -> list[Path]:
    """Those in the folder and in folders below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
