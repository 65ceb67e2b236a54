"""Which column of a table holds the pictures."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from service.settings.names import SettingsError

# What columns of paths are called. Others are text.
_PATH_NAMES = (
    *("path", "paths", "file", "files", "filename", "file_name", "file_names", "filepath", "file_path"),
    *("image", "images", "image_path", "image_paths", "img"),
)
# What columns of pictures are called, where several hold bytes.
_BYTES_NAMES = (
    "image",
    "images",
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
    """The column that was asked for, or the one that looks like pictures: bytes before paths, and one before several.

    Raises `SettingsError` that names the columns.
    """
    if asked is not None:
        kind = _kind(schema, asked, table)
        if not (_holds(kind, _is_bytes) or _holds(kind, _is_text)):
            raise SettingsError(f"the column {asked} of {table} is {kind}: neither bytes nor paths")
        return asked
    for are_several in (False, True):
        fields = [field for field in schema if (several(field.type) is not None) == are_several]
        with_bytes = [field.name for field in fields if _holds(field.type, _is_bytes)]
        with_paths = [
            field.name for field in fields if _holds(field.type, _is_text) and field.name.lower() in _PATH_NAMES
        ]
        for found, names in ((with_bytes, _BYTES_NAMES), (with_paths, _PATH_NAMES)):
            if found:
                return _the_one(found, names, table)
    raise SettingsError(f"no column of {table} looks like pictures: --column names one of {_names(schema)}")


def within(schema: pa.Schema, column: str) -> list[str]:
    """The names that lead from a column of the table to this one: none, but for `sample.image` in a struct `sample`."""
    return [] if column in schema.names else column.split(".")[1:]


def several(kind: pa.DataType) -> pa.DataType | None:
    """What a column of lists holds; None for a column that holds one picture a row."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind.value_type if any(is_list(kind) for is_list in lists) else None


def column_kind(schema: pa.Schema, column: str) -> pa.DataType:
    """Raises `KeyError`."""
    root, *below = [column] if column in schema.names else column.split(".")
    kind = schema.field(root).type
    for name in below:
        if not pa.types.is_struct(kind) or (place := kind.get_field_index(name)) < 0:
            raise KeyError(column)
        kind = kind.field(place).type
    return kind


def _kind(schema: pa.Schema, asked: str, table: str) -> pa.DataType:
    if (named := schema.names.count(asked)) > 1:
        raise SettingsError(f"{table} has {named} columns {asked}; it has {', '.join(schema.names)}")
    try:
        return column_kind(schema, asked)
    except KeyError:
        raise SettingsError(f"{table} has no column {asked}; it has {_names(schema)}") from None


def _names(schema: pa.Schema) -> str:
    return ", ".join(name for field in schema for name in _leaves(field))


def _leaves(field: pa.Field) -> Iterator[str]:
    """The column itself, or the fields of a struct as `--column` names them."""
    kind = field.type
    if not pa.types.is_struct(kind) or _is_bytes(kind):
        yield field.name
        return
    for place in range(kind.num_fields):
        yield from (f"{field.name}.{name}" for name in _leaves(kind.field(place)))


def _the_one(found: Sequence[str], names: Sequence[str], table: str) -> str:
    named = [name for name in found if name.lower() in names]
    chosen = named or found
    if len(chosen) > 1:
        raise SettingsError(f"{' and '.join(chosen)} of {table} may both be the pictures: --column names one")
    return chosen[0]


def _holds(kind: pa.DataType, is_wanted: Callable[[pa.DataType], bool]) -> bool:
    kind = several(kind) or kind
    # What the numbers of a dictionary, also called category, stand for.
    return is_wanted(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_bytes(kind: pa.DataType) -> bool:
    """Bytes, or the struct of bytes and path that Hugging Face's datasets make of an image."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
