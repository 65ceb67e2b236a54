"""Which kind of file a name asks for."""

from pathlib import Path

from service.jobs.packages import needed
from service.jobs.sinks.sink import Sink

TABLES = (".parquet", ".lance")
SUFFIXES = (*TABLES, ".npy", ".safetensors", ".jsonl")


def open_sink(path: Path, *, width: int, fingerprint: str) -> Sink:
    """The file by the suffix of its name, which is one of `SUFFIXES`. width: numbers of an embedding. fingerprint: of
    every vector. Raises `OSError`, and `SettingsError` if a package is missing."""
    match path.suffix:
        case ".parquet":
            with needed("pyarrow", path.suffix):
                from service.jobs.sinks.parquet import ParquetSink
            return ParquetSink(path, width=width, fingerprint=fingerprint)
        case ".lance":
            with needed("lance", path.suffix):
                from service.jobs.sinks.lance import LanceSink
            return LanceSink(path, width=width, fingerprint=fingerprint)
        case ".npy":
            from service.jobs.sinks.numpy import NumpySink

            return NumpySink(path, width=width)
        case ".safetensors":
            from service.jobs.sinks.safetensors import SafetensorsSink

            return SafetensorsSink(path, width=width)
    from service.jobs.sinks.jsonl import JsonlSink

    return JsonlSink(path)
