"""Where an engine's canary has its recorded vectors from: the file, or a process that makes it meanwhile."""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from model.child_process import module_command
from model.kernels.hardware import usable_memory_bytes
from service.canary.files import Recording, Subject, canary_folder, read_recording
from service.canary.jobs import picture_jobs, text_job
from service.canary.recorder import subject_of
from service.engine.canary.rule import Recorded, allowed_distance
from service.engine.canary.turns import Canary
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.settings.settings import Settings

# Recording that has failed is tried again so much later: a disk may have room then.
_TRY_AGAIN_S = 3600.0
# Float32 weights as they are read and as they are laid out, and all else that a process takes.
_BYTES_A_PARAMETER, _OTHER_BYTES = 8, 600 * 1024**2

_log = logging.getLogger(__name__)


class BackgroundRecords:
    """Implements `Records`."""

    def __init__(
        self,
        settings: Settings,
        model: ModelFacts,
        subject: Subject,
        *,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._model, self._subject, self._folder, self._clock = settings, model, subject, folder, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before_s = -float("inf")

    @property
    def pending(self) -> bool:
        return self._process is not None

    def read(self) -> Recorded | None:
        if self._process is not None:
            if (status := self._process.poll()) is None:
                return None
            # Otherwise its log says why, if it has failed.
            if status < 0:
                name = signal.Signals(-status).name
                _log.warning("the canary's vectors are not recorded: %s ended the process that does it", name)
            self._process, self._not_before_s = None, self._clock() + _TRY_AGAIN_S
        found = self.found()
        if found is None and self._clock() >= self._not_before_s:
            self._begin()
        return found

    def found(self) -> Recorded | None:
        """What is recorded. Begins nothing."""
        recording = read_recording(self._folder, self._subject)
        return None if recording is None else recorded_of(recording, self._model)

    def _begin(self) -> None:
        self._not_before_s = self._clock() + _TRY_AGAIN_S
        if lacks := lacking_memory(self._model.name, self._model.parameters):
            _log.warning("the canary's vectors are not recorded: %s (docs/canary.md)", lacks)
            return
        given = {
            "folder": str(self._folder),
            "parent_pid": os.getpid(),
            "subject": [self._subject.fingerprint, self._subject.text_fingerprint, self._subject.drawn],
            "settings": self._settings.for_child(with_keys=False),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            command = [*module_command("service.canary.recorder"), json.dumps(given)]
            # In a session of its own, so that a terminal's Ctrl-C reaches the server alone.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            _log.warning("the canary's vectors cannot be kept in %s: %s", self._folder, error.strerror or error)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                process.kill()
            process.wait()


def recorded_of(recording: Recording, model: ModelFacts) -> Recorded:
    texts = tuple(text_job(name, ids, model) for name, ids in recording.ids.items())
    return Recorded(recording.vectors, allowed_distance(model.dtype, recording.measured), texts)


def canary_of(settings: Settings, model: ModelFacts, limits: Limits, metrics: Metrics) -> Canary | None:
    """The canary of an engine; None if the settings want none."""
    if not settings.canary_interval_s:
        return None
    pictures = picture_jobs(model, limits)
    if not pictures:
        return None
    records = BackgroundRecords(settings, model, subject_of(model, limits), folder=canary_folder())
    return Canary(pictures, records, recorded=records.found(), interval_s=settings.canary_interval_s, metrics=metrics)


def lacking_memory(name: str, parameters: int) -> str | None:
    """A container that goes over its limit may be ended whole, so recording is not tried where it might not fit."""
    needed = parameters * _BYTES_A_PARAMETER + _OTHER_BYTES
    free = min(_available_bytes(), usable_memory_bytes() - _held_bytes())
    if needed <= free:
        return None
    return f"a CPU takes {needed / 1e9:.1f} GB for {name} in float32, and {free / 1e9:.1f} GB are free"


def _held_bytes() -> int:
    """By this process."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _available_bytes() -> int:
    """Of the machine."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return 1 << 62
