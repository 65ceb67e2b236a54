"""`packlight check` says what is right and what is wrong, of a model here and of a server."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from model.running.runner import Runner
from service.__main__ import main
from service.canary.files import Recording, write_recording
from service.canary.jobs import canary_pictures, picture_jobs
from service.canary.recorder import recorded, run_alone, subject_of
from service.cli.check.findings import Report, add_canary
from service.cli.check.there import _recorded as recorded_of_server
from service.cli.check.there import png
from service.engine.canary.rule import Recorded, Vectors, fault_in
from service.limits import Limits, ModelFacts
from service.settings.settings import Settings
from tests.service.running import Running

Loaded = tuple[Runner, ModelFacts]

SETTINGS = Settings(devices="cpu", dtype="float32")


@pytest.fixture(scope="module")
def loaded(bundled: tuple[Runner, ModelFacts]) -> tuple[Runner, ModelFacts]:
    """The whole model: it is loaded here again, to be compared."""
    return bundled


@pytest.fixture(scope="module")
def recording(loaded: Loaded) -> Recording:
    return recorded(SETTINGS, subject_of(loaded[1], Limits.of(SETTINGS, loaded[1])))


@pytest.fixture(autouse=True)
def kept(loaded: Loaded, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder with what is recorded of the bundled model."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder = tmp_path / "packlight-canary"
    folder.mkdir()
    subject = subject_of(loaded[1], Limits.of(SETTINGS, loaded[1]))
    write_recording(folder, subject, recording, made_by="tests")


@pytest.fixture
def lie(server: Running) -> Iterator[Callable[[Vectors], None]]:
    """Has the server's device add this to all vectors."""
    real = server.runner.runner

    class Lying:
        def __init__(self, added: Vectors) -> None:
            self.added = added

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def run(self, *given: object, **named: object) -> object:
            output = real.run(*given, **named)  # type: ignore[arg-type]
            output.pooled[:] += self.added
            return output

    def begin(added: Vectors) -> None:
        server.runner.runner = Lying(added)  # type: ignore[assignment]

    yield begin
    server.runner.runner = real


def url(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_a_server_that_is_right(server: Running, capsys: pytest.CaptureFixture[str], fast: None) -> None:
    assert main(["check", url(server)]) == 0
    told = capsys.readouterr().out
    assert "packlight-tiny, float32 on cpu" in told
    assert told.count("cosine 1.000000") == 6
    assert "asked again" in told
    assert "tokens/s" in told
    assert told.endswith("all is right\n")


def test_a_server_whose_vectors_are_wrong(
    server: Running, capsys: pytest.CaptureFixture[str], lie: Callable[[Vectors], None], fast: None
) -> None:
    lie(np.float32(0.5) * np.ones(256, np.float32))
    assert main(["check", url(server)]) == 1
    told = capsys.readouterr().out
    assert told.count("WRONG") == 6
    assert "away from the one recorded" in told
    assert told.endswith("wrong: icon, page, panorama, photograph, receipt, weave\n")


def test_a_server_with_limits_of_its_own_is_compared_by_pictures_of_its_sizes(server: Running, loaded: Loaded) -> None:
    runner, model = loaded
    info = server.http.get("/info").json()
    info["limits"]["max_image_tokens"] = 16
    found, why = recorded_of_server(info, canary_pictures(model.geometry, 16), Settings())
    assert found is not None, why
    small = dataclasses.replace(Limits.of(SETTINGS, model), max_image_tokens=16)
    assert fault_in(run_alone(runner, picture_jobs(model, small)), found) is None


def test_a_model_of_a_server_that_does_not_fit_here_is_not_loaded(
    server: Running, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.canary.background.usable_memory_bytes", lambda: 10**6)
    info = server.http.get("/info").json()
    found, why = recorded_of_server(info, canary_pictures(loaded[1].geometry, 16), Settings())
    assert found is None
    assert "a CPU takes" in why


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs are timed no longer than they have to be."""
    monkeypatch.setattr("service.cli.check.there._TIMED_S", 0.0)
    monkeypatch.setattr("service.cli.check.here._TIMED_S", 0.0)


@pytest.mark.slow
def test_the_bundled_model_is_right_here_and_as_transformers_has_it(
    capsys: pytest.CaptureFixture[str], fast: None
) -> None:
    assert main(["check", "--devices", "cpu", "--dtype", "float32", "--max-batch-tokens", "1024"]) == 0
    told = capsys.readouterr().out
    assert told.count("ok ") == 8
    assert "packed or alone  the same bits" in told
    assert "in float32: cosine 1.0000000" in told


def test_what_cannot_be_asked_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "http://127.0.0.1:9"]) == 2
    assert "cannot be asked" in capsys.readouterr().err
    assert main(["check", "no-such-model"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["check", "localhost:8000"]) == 2
    assert "put http:// in front" in capsys.readouterr().err
    assert main(["check", "packlight-tiny", "--model", "other"]) == 2
    assert "both name the model" in capsys.readouterr().err
    for option, value in (("--model", "a"), ("--dtype", "float32"), ("--max-batch-tokens", "64")):
        assert main(["check", "http://127.0.0.1:9", option, value]) == 2
        assert f"{option} is for a model that is loaded here" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["fingerprint", "limits", "geometry"])
def test_a_server_of_an_earlier_version_is_said_to_be_one(
    server: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    info = server.http.get("/info").json()
    (info if missing in info else info["model"]).pop(missing)
    monkeypatch.setattr("service.cli.upgrade.server.RemoteServer._read_info", lambda self: info)
    assert main(["check", url(server)]) == 2
    assert "is not that of this version" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", ["http://127.0.0.1:99999", "http://[::1", "http://", "https://host:port", "HTTP://h:0"]
)
def test_a_url_that_is_none_is_said_to_be_one(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert main(["check", wrong]) == 2
    assert "is no URL of a server" in capsys.readouterr().err


def test_without_a_record_pictures_are_told_apart_and_not_compared() -> None:
    report, vectors = Report("m"), {"icon": np.ones((1, 4), np.float32), "page": np.eye(1, 4, dtype=np.float32)}
    add_canary(report, vectors, None, {"icon": 9, "page": 48}, "no memory")
    assert report.failed == []
    assert "not compared: no memory" in str(report)
    add_canary(report, vectors | {"page": vectors["icon"]}, None, {"icon": 9, "page": 48})
    assert report.failed == ["together"]
    assert "icon and page have the same vector" in str(report)


def test_a_wrong_picture_is_named() -> None:
    report, right = Report("m"), {"icon": np.ones((1, 4), np.float32)}
    add_canary(report, {"icon": np.zeros((1, 4), np.float32)}, Recorded(right, 0.1), {"icon": 9})
    assert report.failed == ["icon"]
    assert "WRONG" in str(report)


def test_a_picture_is_sent_with_other_bytes_every_time(loaded: Loaded) -> None:
    """A server that remembers pictures would otherwise answer what it computed earlier."""
    picture = canary_pictures(loaded[1].geometry, 1024)[0]
    assert png(picture) != png(picture)
