"""`packlight embed` as a job: whether the device waits, what the processors could do, how much memory it takes.

| row | what is measured |
|---|---|
| `emulated` | the share of time for which an emulated accelerator is busy while photos are decoded beside it. It takes nine tenths of the pictures that all cores decode, so it should never wait |
| `cpu` | images a second on this machine's processors, over what every core would do if it only decoded or ran forwards, by the processor time of both |
| `before` | with `--before CHECKOUT`: images a second of both checkouts on 12-megapixel photos with `decode=fast`, one after the other in every round: on this machine's processors, and with an emulated accelerator. `most_gain` is what no job can pass, by the processor time of decoding and forwards alone |
| `memory` | the largest resident set in each quarter of a run; `grows` if the last one's is more than a tenth over the second one's |

Other programs on the machine lower `busy`, `of_allowed` and `images_s`. `cores` is how many cores the process had;
`of_processor_time` does not depend on that: it is the processor time of decoding and forwards over that of the whole job.
"""  # noqa: E501

import argparse
import math
import statistics
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.bench.decoding import jpegs
from loadtest.bench.jobs import embedder
from model.kernels.hardware import usable_cores

Row = dict[str, object]
_CASES = ("emulated", "cpu", "before", "memory")
_LEAST_BUSY, _LEAST_OF_ALLOWED, _LEAST_GAIN, _MOST_GROWTH = 0.97, 0.95, 1.15, 1.1
_TAKES = 0.9  # of the pictures that are decoded, an emulated device


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", choices=_CASES, default=list(_CASES))
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="of a run (default: %(default)s)")
    parser.add_argument("--large", type=int, default=96, metavar="N", help="12-megapixel photos (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each measurement (default: %(default)s)")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="pictures for `memory` (default: small photos)")


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each case."""
    rows: list[Row] = []
    if {"emulated", "cpu", "memory"} & set(options.cases):
        with _photos("photo, 0.2 MP", options.pictures) as folder:
            if "emulated" in options.cases:
                rows.append(_emulated(folder, options.rounds))
            if "cpu" in options.cases:
                rows.append(_cpu(folder, options.rounds))
            if "memory" in options.cases:
                rows.append(_memory(options.folder or folder))
    if "before" in options.cases and options.before:
        with _photos("photo, 12 MP, quality 80", options.large) as folder:
            rows += [_before(folder, options, device) for device in ("cpu", "emulated")]
    return rows


def _emulated(folder: Path, rounds: int) -> Row:
    """Each round measures what is decoded with a device that takes no time, and then one that takes nine tenths."""
    busy, rates = [], []
    for _ in range(rounds):
        free = _run(folder, pack_s=0.0)
        rates.append(free["images_s"])
        busy.append(_run(folder, pack_s=_pack_s(free["images_s"]))["busy"])
    return {
        "case": "emulated",
        "decoded_s": round(statistics.median(rates), 1),
        "pack_ms": round(_pack_s(statistics.median(rates)) * 1e3, 1),
        "busy": round(statistics.median(busy), 3),
        "busiest": round(max(busy), 3),
        "verdict": "ok" if max(busy) >= _LEAST_BUSY else "failed",
    }


def _pack_s(images_s: float) -> float:
    """How long a full pack takes on a device that takes nine tenths of so many images a second."""
    return embedder.BATCH_TOKENS / embedder.TOKENS / (_TAKES * images_s)


def _cpu(folder: Path, rounds: int) -> Row:
    """The parts alone and the job, in turn; medians over the rounds."""
    shares, whole, cores, images_s = [], [], [], []
    for _ in range(rounds):
        alone = embedder.started("alone", folder)
        run = embedder.started("job", folder, device="cpu")
        images_s.append(run["images_s"])
        shares.append(run["images_s"] * alone["cpu_s"] / run["images"] / usable_cores())
        whole.append(alone["cpu_s"] / run["cpu_s"])
        cores.append(run["cores"])
    return {
        "case": "cpu",
        "images_s": round(statistics.median(images_s), 1),
        "cores": round(statistics.median(cores), 2),
        "of_allowed": round(statistics.median(shares), 3),
        "of_processor_time": round(statistics.median(whole), 3),
        "verdict": "ok" if max(shares) >= _LEAST_OF_ALLOWED else "failed",
    }


def _before(folder: Path, options: argparse.Namespace, device: str) -> Row:
    """Both checkouts in turn, in changing order."""
    pack_s = 0.0
    if device == "emulated":
        pack_s = _pack_s(_run(folder, pack_s=0.0, decode="fast")["images_s"]) * _TAKES
    found: dict[str, list[embedder.Figures]] = {"before": [], "now": []}
    allowed: list[float] = []
    for number in range(options.rounds):
        allowed.append(_allowed_s(folder) if device == "cpu" else math.nan)
        for which in ("before", "now") if number % 2 else ("now", "before"):
            checkout = options.before if which == "before" else None
            figures = embedder.started("job", folder, device=device, pack_s=pack_s, decode="fast", checkout=checkout)
            found[which].append(figures)
    before, now = ([each["images_s"] for each in found[which]] for which in ("before", "now"))
    gain = statistics.median(new / old for new, old in zip(now, before, strict=True))
    most_gain = statistics.median(most / old for most, old in zip(allowed, before, strict=True))
    return {
        "case": f"before, {device}",
        "before_images_s": round(statistics.median(before), 1),
        "images_s": round(statistics.median(now), 1),
        "gain": round(gain, 2),
        "most_gain": "-" if math.isnan(most_gain) else round(most_gain, 2),
        "before_cores": round(statistics.median(each["cores"] for each in found["before"]), 2),
        "cores": round(statistics.median(each["cores"] for each in found["now"]), 2),
        "verdict": "ok" if gain >= _LEAST_GAIN else "failed",
    }


def _allowed_s(folder: Path) -> float:
    """Images a second if every core only decoded or ran forwards, by the processor time of both alone."""
    alone = embedder.started("alone", folder, decode="fast")
    return float(usable_cores() * alone["images"] / alone["cpu_s"])


def _memory(folder: Path) -> Row:
    figures = embedder.started("memory", folder)
    quarters: Sequence[float] = figures["quarters_mb"]
    return {
        "case": "memory",
        "images": figures["images"],
        "peak_mb": ", ".join(f"{quarter:.0f}" for quarter in quarters),
        "verdict": "grows" if quarters[3] > _MOST_GROWTH * quarters[1] else "ok",
    }


def _run(folder: Path, *, pack_s: float, decode: str = "exact") -> embedder.Figures:
    return embedder.started("job", folder, device="emulated", pack_s=pack_s, decode=decode)


@contextmanager
def _photos(kind: str, count: int) -> Iterator[Path]:
    """JPEGs of one kind. Each has a comment of its own: the job would embed the same bytes once."""
    (made,) = (each for each in jpegs.made((kind,)))
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            data, comment = made.pictures[number % len(made.pictures)], str(number).encode()
            segment = b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment
            (Path(name) / f"{number:06d}.jpg").write_bytes(data[:2] + segment + data[2:])
        yield Path(name)
