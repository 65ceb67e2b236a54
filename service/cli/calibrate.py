"""The command `packlight calibrate`: finds a model's int8 scale on a folder of pictures, for `int8_calibration`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from service.calibration import Calibration, write_calibration
from service.cli.files import (
    EXIT_CANNOT_WRITE,
    EXIT_SOME_FAILED,
    FileRun,
    add_budget_options,
    files_of,
    not_read,
    opened_pipeline,
    say,
)
from service.cli.neighbors import existing_folder
from service.int8_scale import FIXED_CLIP, best_clip
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError, option
from service.settings.settings import Settings

# With fewer pictures the scale fits those more than the model.
_FEW = 100


def add_calibrate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=existing_folder, metavar="FOLDER", help="pictures, folders below too")
    parser.add_argument(
        "--out", type=_out_path, required=True, metavar="FILE", help="the file to write, for serve --int8-calibration"
    )
    add_budget_options(parser)


def _out_path(value: str) -> Path:
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write a file at {path}")
    return path


def run_calibrate(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 if a file failed, 2 if the calibration could not be written."""
    files = files_of(options.folder, "embedded")
    from service.loading import load_runner

    # An earlier calibration may be of another model, and changes nothing here.
    runner, model = load_runner(settings.model_copy(update={"int8_calibration": None}))
    with opened_pipeline(settings, options, runner, model) as pipeline:
        run = FileRun(pipeline)
        vectors = [result.embedding for result in run.results(files.images, files.unreadable)]
    sys.stderr.writelines(f"{line}\n" for line in not_read(SuffixCounts(files.others)))
    if not vectors:
        raise SettingsError(f"{one_line(options.folder)} holds no image that can be embedded")
    calibration = Calibration(
        model=model.name,
        fingerprint=model.fingerprint,
        dimensions=model.dim,
        pictures=len(vectors),
        clip=round(best_clip(np.stack(vectors)), 4),
    )
    try:
        write_calibration(options.out, calibration)
    except OSError as error:
        sys.stderr.write(f"packlight: {one_line(options.out)} cannot be written: {error.strerror or error}\n")
        return EXIT_CANNOT_WRITE
    say(_summary(calibration, options.out))
    return EXIT_SOME_FAILED if run.failed else 0


def _summary(calibration: Calibration, out: Path) -> str:
    few = f"; more than {_FEW} would be better" if calibration.pictures < _FEW else ""
    return (
        f"clip {calibration.clip:g} (the fixed one is {FIXED_CLIP:g}), from {calibration.pictures} pictures{few}\n"
        f"packlight serve {option('int8_calibration')} {one_line(out)}\n"
    )
