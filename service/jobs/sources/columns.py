"""Which column of a table holds the pictures."""

from collections.abc import Sequence

import pyarrow as pa

from service.settings.names import SettingsError

# What columns of paths are called. Others are text.
_PATH_NAMES = ("path", "paths", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
# What columns of pictures are called, where several hold bytes.
_BYTES_NAMES = (
    "image",
    "bytes",
    "image_bytes",
    "img",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "picture",
    "photo",
    "content",
    "data",
)


def picture_column(schema: pa.Schema, asked: str | None, *, table: str) -> str:
    """The column that was asked for, or the one that looks like pictures: bytes before paths.

    Raises `SettingsError` that names the columns.
    """
    if asked is not None:
        if (named := schema.names.count(asked)) != 1:
            count = f"{named} columns" if named else "no column"
            raise SettingsError(f"{table} has {count} {asked}; it has {', '.join(schema.names)}")
        kind = schema.field(asked).type
        if not (_holds_bytes(kind) or _holds_text(kind)):
            raise SettingsError(f"the column {asked} of {table} is {kind}: neither bytes nor paths")
        return asked
    with_bytes = [field.name for field in schema if _holds_bytes(field.type)]
    with_paths = [field.name for field in schema if _holds_text(field.type) and field.name.lower() in _PATH_NAMES]
    for found, names in ((with_bytes, _BYTES_NAMES), (with_paths, _PATH_NAMES)):
        if found:
            return _the_one(found, names, table)
    raise SettingsError(f"no column of {table} looks like pictures: --column names one of {', '.join(schema.names)}")


def _the_one(found: Sequence[str], names: Sequence[str], table: str) -> str:
    named = [name for name in found if name.lower() in names]
    chosen = named or found
    if len(chosen) > 1:
        raise SettingsError(f"{' and '.join(chosen)} of {table} may both be the pictures: --column names one")
    return chosen[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Bytes, or the struct of bytes and path that Hugging Face's datasets make of an image."""
    kind = _of_values(kind)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_text(kind: pa.DataType) -> bool:
    kind = _of_values(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _of_values(kind: pa.DataType) -> pa.DataType:
    """That of what the numbers of a dictionary, also called category, stand for."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
