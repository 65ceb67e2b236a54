"""How the error of a dtype grows from block to block, on scenes cut from real pictures.

`error_by_layer` is the norm of the difference from float32 over the norm of float32, of all tokens behind each block.
`python -m loadtest.bench variants` says what is left of it in the vectors. Pictures are those that scikit-image and
scikit-learn carry, or a folder's files.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.layouts import Row, decoded, pictures, readable
from loadtest.bench.vectors import scenes
from model.errors import ModelError
from model.pack import PackedBatch, pack
from service.limits import Limits
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.running.devices import DtypeName
    from model.running.runner import Runner

_DTYPES: tuple["DtypeName", ...] = ("bfloat16", "int8")

Streams = list[NDArray[np.float32]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, metavar="DIR", help="your own pictures")
    parser.add_argument(
        "--model", default="packlight-tiny", help="checkpoint folder or hub id (default: packlight-tiny)"
    )
    parser.add_argument("--scenes", type=int, default=16, metavar="N", help="at most so many (default: 16)")
    parser.add_argument("--dtypes", nargs="+", choices=_DTYPES, default=list(_DTYPES))


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each dtype. Raises `SystemExit` for a model that cannot be loaded or a dtype that this CPU lacks."""
    try:
        expected = _streams(options, "float32")
        found = {dtype: _streams(options, dtype) for dtype in options.dtypes}
    except (ModelError, SettingsError) as error:
        raise SystemExit(f"layers: {error}") from None
    same: Row = {"model": options.model, "tokens": len(expected[0])}
    return [{"dtype": dtype, "error_by_layer": errors(expected, streams)} | same for dtype, streams in found.items()]


def errors(expected: Streams, found: Streams) -> str:
    """Percentages, one a layer."""
    shares = [np.linalg.norm(here - there) / np.linalg.norm(there) for there, here in zip(expected, found, strict=True)]
    return " ".join(f"{100 * share:.2f}%" for share in shares)


def _streams(options: argparse.Namespace, dtype: "DtypeName") -> Streams:
    """The residual stream behind each block: float32 `[T, D]` each, of all scenes."""
    from service.loading import load_runner

    settings = Settings(model=options.model, dtype=dtype, devices="cpu")
    runner, facts = load_runner(settings)
    limits = Limits.of(settings, facts)
    cut = [scene for one in readable(pictures(options.folder), settings.max_decode_pixels) for scene in scenes(one, 4)]
    chosen = cut[:: max(1, len(cut) // options.scenes)][: options.scenes]
    images = decoded(chosen, [limits.default_max_tokens] * len(chosen), facts, limits)
    by_image = [_of(runner, pack([one.rows], one.grids)) for one in images]
    return [np.concatenate(each) for each in zip(*by_image, strict=True)]


def _of(runner: "Runner", batch: PackedBatch) -> Streams:
    """One image at a time, since a pack of several is cut for threads."""
    from model.encoders.gemma.layers import GemmaBlock
    from model.encoders.parts.blocks import Block

    streams: Streams = []

    def keep(_: "nn.Module", inputs: tuple[Any, ...], __: object) -> None:
        stream: Tensor = inputs[0]
        streams.append(stream[: batch.tokens].numpy().copy())

    blocks = [module for module in runner.encoder.modules() if isinstance(module, Block | GemmaBlock)]
    hooks = [block.register_forward_hook(keep) for block in blocks]
    runner.run(batch)
    for hook in hooks:
        hook.remove()
    return streams
