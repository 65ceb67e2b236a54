"""Records the canary's vectors: each picture and text alone, on the CPU, in float32. Once, in a process of its own.

An engine starts it. It takes what nobody else needs: processor time of the lowest priority, and if memory runs out, the
system ends it first. Of several that are started for the same vectors, one records and the others wait for it.
"""

import fcntl
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.child_process import die_with
from model.errors import ModelError
from service import logs
from service.canary.files import Recording, Subject, read_recording, write_recording
from service.canary.jobs import canary_pictures, digest_of, picture_jobs, text_job
from service.canary.pictures import TEXTS
from service.engine.canary.rule import NamedJob, distance
from service.limits import Limits, ModelFacts
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner

EXIT_CANNOT_RECORD = 2

# What the engine's settings become for a CPU.
_HERE = {"devices": "cpu", "attention": "auto", "int8_calibration": None}

_log = logging.getLogger(__name__)


def main(argument: str) -> int:
    """argument: JSON of the folder, the parent's pid, the subject and the settings of the engine."""
    given = json.loads(argument)
    die_with(given["parent_pid"])
    _step_back()
    settings, folder = Settings(**given["settings"]), Path(given["folder"])
    logs.configure(settings.log_format, settings.log_level, process="canary")
    subject = Subject(*given["subject"])
    try:
        with _only_one(folder / f".{subject.file_name}.lock"):
            if read_recording(folder, subject) is None:
                with _quietly():
                    recording = recorded(settings, subject)
                write_recording(folder, subject, recording, made_by=version())
                _log.info("the canary's vectors of %s are recorded in %s", subject.fingerprint, folder)
    except (ModelError, SettingsError, OSError, MemoryError) as error:
        _log.warning("the canary's vectors cannot be recorded: %s", error)
        return EXIT_CANNOT_RECORD
    finally:
        logging.shutdown()
    return 0


def recorded(settings: Settings, subject: Subject | None = None) -> Recording:
    """settings: those of the engine, whose device may be another. subject: what the engine serves; None for whatever
    the settings load.

    Raises `ModelError`, and `SettingsError` if the checkpoint is not the one that is served.
    """
    dtype = settings.dtype if subject is None else subject.fingerprint.split("-")[1]
    exact, ids, facts = _vectors(settings, "float32")
    if subject is not None and facts.fingerprint.split("-")[0] != subject.fingerprint.split("-")[0]:
        raise SettingsError(f"the checkpoint is now {facts.fingerprint}, and {subject.fingerprint} is served")
    measured = 0.0
    if dtype not in ("auto", "float32"):
        # A CPU computes no float16; bfloat16 is farther off.
        rounded, _, _ = _vectors(settings, "bfloat16" if dtype == "float16" else dtype)
        measured = max(distance(rounded[name], exact[name]) for name in exact)
    return Recording(exact, measured, ids, facts.fingerprint)


def _vectors(
    settings: Settings, dtype: str
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int32]], ModelFacts]:
    """Of each picture and text in a pack of its own, and the ids of the texts."""
    from service.loading import load_runner

    own = settings.model_copy(update=_HERE | {"dtype": dtype})
    if own.max_batch_tokens is None:
        # The default of the largest devices: what fits there fits here.
        own = own.model_copy(update={"max_batch_tokens": 16_384})
    runner, model = load_runner(own)
    limits = Limits.of(own, model)
    ids = _text_ids(settings, model)
    texts = [text_job(name, each, model) for name, each in ids.items()]
    return run_alone(runner, [*picture_jobs(model, limits), *texts]), ids, model


def _text_ids(settings: Settings, model: ModelFacts) -> dict[str, NDArray[np.int32]]:
    if model.text is None:
        return {}
    from service.loading import tokenizer_of

    tokenizer = tokenizer_of(settings, model.text)
    prompt = model.text.documents.prompt(None) if model.text.documents else ""
    return {f"text {number}": tokenizer.encode(prompt + text).ids for number, text in enumerate(TEXTS, start=1)}


def run_alone(runner: "Runner", jobs: Sequence[NamedJob]) -> dict[str, NDArray[np.float32]]:
    """The vectors of each in a pack of its own, by name."""
    from service.engine.device import device_of

    device = device_of(runner)
    return {each.name: device.submit([each.job]).wait().vectors()[0].pooled.copy() for each in jobs}


def subject_of(model: ModelFacts, limits: Limits) -> Subject:
    drawn = digest_of(canary_pictures(model.geometry, limits.max_image_tokens))
    return Subject(model.fingerprint, model.text.fingerprint if model.text else "", drawn)


@contextmanager
def _quietly() -> Iterator[None]:
    """Loading tells which threads and dtypes it takes. Those of the engine have been told."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Waits for another that records the same. Raises `OSError`."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _step_back() -> None:
    """Gives way to everything else."""
    with suppress(OSError):
        os.nice(19)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    # Read by torch when it is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"


def version() -> str:
    return importlib.metadata.version("packlight")
