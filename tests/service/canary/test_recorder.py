"""Vectors are recorded once, in the background, by a CPU in float32, and a device that is right has them."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from model.running.runner import Runner
from service.canary.background import BackgroundRecords, canary_of, recorded_of
from service.canary.files import read_recording, write_recording
from service.canary.jobs import picture_jobs
from service.canary.recorder import recorded, run_alone, subject_of
from service.engine.canary.rule import distance, fault_in
from service.engine.device import HostDevice
from service.limits import Limits, ModelFacts
from service.loading import load_runner
from service.metrics import Metrics
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.service.running import until
from tests.text_models import save_whole

Loaded = tuple[Runner, ModelFacts]

SETTINGS = Settings(devices="cpu", dtype="float32")


@pytest.fixture(scope="module")
def loaded(bundled: tuple[Runner, ModelFacts]) -> tuple[Runner, ModelFacts]:
    """The whole model: a process of its own loads it too, and records."""
    return bundled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest.mark.slow
def test_two_engines_record_once_and_read_what_the_device_computes(loaded: Loaded, folder: Path) -> None:
    runner, model = loaded
    limits = Limits.of(SETTINGS, model)
    subject = subject_of(model, limits)
    records = [BackgroundRecords(SETTINGS, model, subject, folder=folder) for _ in range(2)]
    assert [each.read() for each in records] == [None, None]
    assert all(each.pending for each in records)
    until(lambda: all(each.read() for each in records))
    assert not any(each.pending for each in records)
    (file,) = folder.glob("[!.]*")
    assert file.name == subject.file_name

    vectors = run_alone(runner, picture_jobs(model, limits))
    known = records[0].read()
    assert known is not None
    assert known.allowed == 0.005
    assert max(distance(vectors[name], each) for name, each in known.vectors.items()) < 1e-5
    assert fault_in(vectors, known) is None


def test_every_pair_of_pictures_can_be_told_apart(loaded: Loaded) -> None:
    vectors = run_alone(loaded[0], picture_jobs(loaded[1], Limits.of(SETTINGS, loaded[1])))
    names = list(vectors)
    for one in names:
        assert all(distance(vectors[one], vectors[other]) > 0.5 for other in names if other != one)


def test_a_checkpoint_that_has_changed_since_is_not_recorded(loaded: Loaded, folder: Path) -> None:
    subject = subject_of(loaded[1], Limits.of(SETTINGS, loaded[1]))
    with pytest.raises(SettingsError, match="the checkpoint is now"):
        recorded(SETTINGS, type(subject)("0000000000000000-float32", "", subject.drawn))


def test_a_dtype_that_rounds_has_the_bound_that_this_cpu_measured(loaded: Loaded) -> None:
    model = loaded[1]
    recording = recorded(SETTINGS.model_copy(update={"dtype": "bfloat16"}))
    assert 0.001 < recording.measured < 0.02
    bound = recorded_of(recording, model).allowed
    assert bound >= 4 * recording.measured or bound == 0.4


def test_recording_that_does_not_fit_into_memory_is_not_tried(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.canary.background.usable_memory_bytes", lambda: 10**6)
    subject = subject_of(loaded[1], Limits.of(SETTINGS, loaded[1]))
    records = BackgroundRecords(SETTINGS, loaded[1], subject, folder=tmp_path)
    assert records.read() is None
    assert not records.pending
    assert "are not recorded: a CPU takes" in caplog.text


def test_a_recorder_that_is_killed_is_told_of(loaded: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the system does first when memory runs out."""
    records = BackgroundRecords(
        SETTINGS, loaded[1], subject_of(loaded[1], Limits.of(SETTINGS, loaded[1])), folder=tmp_path
    )
    assert records.read() is None
    assert records._process is not None
    records._process.kill()
    until(lambda: records.read() is None and not records.pending)
    assert "SIGKILL ended the process that does it" in caplog.text


@pytest.mark.slow
def test_a_recorder_ends_with_its_engine(loaded: Loaded, tmp_path: Path) -> None:
    subject = subject_of(loaded[1], Limits.of(SETTINGS, loaded[1]))
    records = BackgroundRecords(SETTINGS, loaded[1], subject, folder=tmp_path)
    assert records.read() is None
    process = records._process
    assert process is not None
    assert os.getsid(process.pid) != os.getsid(0)
    records.close()
    assert process.returncode == -9
    # As it does if the thread that drives the device ends.
    thread = threading.Thread(target=records._begin)
    records._not_before_s = 0.0
    thread.start()
    thread.join()
    left = records._process
    assert left is not None
    until(lambda: left.poll() is not None)


def test_a_canary_is_off_at_zero_and_knows_at_once_what_is_recorded(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, limits = loaded[1], Limits.of(SETTINGS, loaded[1])
    assert canary_of(SETTINGS.model_copy(update={"canary_interval_s": 0.0}), model, limits, Metrics()) is None
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "packlight-canary").mkdir()
    recording = recorded(SETTINGS)
    write_recording(tmp_path / "packlight-canary", subject_of(model, limits), recording, made_by="tests")
    assert read_recording(tmp_path / "packlight-canary", subject_of(model, limits))
    canary = canary_of(SETTINGS.model_copy(update={"canary_interval_s": 5.0}), model, limits, Metrics())
    assert canary is not None
    assert canary._recorded is not None
    assert np.array_equal(canary._recorded.vectors["page"], recording.vectors["page"])


def test_a_model_with_texts_has_them_recorded_with_their_ids(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_whole(tmp_path / "model", "siglip2")
    settings = SETTINGS.model_copy(update={"model": str(tmp_path / "model")})
    runner, model = load_runner(settings)
    limits = Limits.of(settings, model)
    subject = subject_of(model, limits)
    write_recording(tmp_path, subject, recorded(settings, subject), made_by="tests")
    recording = read_recording(tmp_path, subject)
    assert recording is not None
    known = recorded_of(recording, model)
    assert [each.name for each in known.texts] == ["text 1", "text 2"]
    jobs = [*picture_jobs(model, limits), *known.texts]
    # As in one pack, where texts run behind images.
    outputs = HostDevice(runner).submit([each.job for each in jobs]).wait().vectors()
    vectors = {each.name: output.pooled for each, output in zip(jobs, outputs, strict=True)}
    assert len(vectors) == 8
    assert fault_in(vectors, known) is None
    vectors["text 1"], vectors["text 2"] = vectors["text 2"], vectors["text 1"]
    assert fault_in(vectors, known) == "text 1 has the vector of text 2"
