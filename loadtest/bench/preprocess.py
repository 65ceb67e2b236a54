"""From the bytes of a JPEG to its patch rows, exact and fast, beside Transformers' Pillow processor: images a second.

All three run in threads, as the server's decoding does, and make uint8 rows for 256 tokens. Transformers' processor
neither rescales nor normalises here, because our device does that. Each case runs with one thread and with a thread a
core. In every round each way processes the same pictures, one way after the other. The rows hold medians over the
rounds, and ratios of processor time, which other programs on the machine disturb less than images a second.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

from PIL import Image, ImageOps

from loadtest.bench.decoding import jpegs
from model.images.decode import DecodeMode, decode_patches, read_header
from model.kernels.hardware import usable_cores
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image

TOKENS = 256
NAFLEX = Geometry.for_naflex(16, TOKENS)
MAX_DECODE_PIXELS = 80_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    jpegs.add_options(parser)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="measurements of each (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="least of a measurement (default: 0.3)")


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Images a second, processor time an image, and its ratios, for each kind of picture and number of threads."""
    kinds = jpegs.chosen(options)
    ways: dict[str, Callable[[bytes], object]] = {
        "exact": partial(_rows_of, decode="exact"),
        "fast": partial(_rows_of, decode="fast"),
        "transformers": _processor(),
    }
    return [
        _measure(kind, ways, threads, options.rounds, options.seconds)
        for kind in kinds
        for threads in sorted({1, usable_cores()})
    ]


def _rows_of(data: bytes, decode: DecodeMode) -> object:
    """As the server decodes a file."""
    header = read_header(data, max_decode_pixels=MAX_DECODE_PIXELS)
    plan = plan_image(header.size, geometry=NAFLEX, budget=Budget.of_tokens(TOKENS, 16), strategy="naflex")
    return decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=MAX_DECODE_PIXELS, decode=decode)


def _processor() -> Callable[[bytes], object]:
    """As a program decodes that uses Transformers."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    processor = Siglip2ImageProcessorPil(max_num_patches=TOKENS, do_rescale=False, do_normalize=False)

    def process(data: bytes) -> object:
        with Image.open(BytesIO(data)) as image:
            return processor(ImageOps.exif_transpose(image), return_tensors=None)

    return process


def _measure(
    kind: jpegs.Jpegs, ways: dict[str, Callable[[bytes], object]], threads: int, rounds: int, least_s: float
) -> dict[str, object]:
    with ThreadPoolExecutor(threads) as pool:
        work = list(kind.pictures) * threads
        work *= 1 + int(least_s / _seconds(pool, ways["exact"], work))
        for way in ways.values():
            _seconds(pool, way, work)
        took_s: dict[str, list[float]] = {name: [] for name in ways}
        spent_s: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                before_s = time.process_time()
                took_s[name].append(_seconds(pool, way, work))
                spent_s[name].append(time.process_time() - before_s)
    rates = {name: len(work) / statistics.median(values) for name, values in took_s.items()}
    cpu_ms = {name: statistics.median(values) / len(work) * 1e3 for name, values in spent_s.items()}
    sizes = [read_header(data, max_decode_pixels=MAX_DECODE_PIXELS).size for data in kind.pictures]
    return {
        "pictures": kind.kind,
        "megapixels": round(statistics.mean(height * width for height, width in sizes) / 1e6, 1),
        "megabytes": round(statistics.mean(map(len, kind.pictures)) / 1e6, 2),
        "threads": threads,
        **{f"{name}_per_s": round(rate, 1) for name, rate in rates.items()},
        **{f"{name}_cpu_ms": round(value, 2) for name, value in cpu_ms.items()},
        "exact_over_fast": round(cpu_ms["exact"] / cpu_ms["fast"], 2),
        "transformers_over_exact": round(cpu_ms["transformers"] / cpu_ms["exact"], 2),
    }


def _seconds(pool: ThreadPoolExecutor, way: Callable[[bytes], object], work: list[bytes]) -> float:
    began_s = time.perf_counter()
    for _ in pool.map(way, work):
        pass
    return time.perf_counter() - began_s
