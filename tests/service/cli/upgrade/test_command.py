"""`packlight upgrade-check` between two real servers: what it prints, and its exit status."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.running.runner import Runner
from service.__main__ import main
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.reference import SMALL, save_fixed
from tests.service.running import Running, serving

Run = Callable[..., tuple[int, str, str]]
Loaded = tuple[Runner, ModelFacts]


@pytest.fixture(scope="module")
def loaded(bundled: tuple[Runner, ModelFacts]) -> tuple[Runner, ModelFacts]:
    """The whole model: another server loads it too."""
    return bundled


@pytest.fixture(scope="module")
def rounded() -> Iterator[Running]:
    """The same weights in bfloat16, behind a key."""
    with serving(load_runner(Settings(devices="cpu", dtype="bfloat16")), api_keys="s/me") as server:
        yield server


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Another model, with vectors of another width."""
    folder = tmp_path_factory.mktemp("clip")
    save_fixed(folder, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    with serving(load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for name in ("rocket.jpg", "page.png", "text.png", "coffee.png"):
        (made / name).write_bytes(pictures.photograph_file(name))
    (made / "broken.png").write_bytes(b"no picture")
    return made


def url(server: Running, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.port}"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["upgrade-check", *map(str, arguments), "--max-tokens", "16"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_the_same_weights_in_another_dtype_keep_the_index(
    run: Run, module_server: Running, rounded: Running, folder: Path
) -> None:
    status, out, err = run(url(module_server), url(rounded, "any:s%2Fme@") + "/", folder, "--least-recall", "0.5")
    assert (status, err) == (0, ""), out
    assert f"old  {url(module_server)}  packlight-tiny, float32 on cpu  {module_server.facts.fingerprint}" in out
    assert f"new  {url(rounded)}  packlight-tiny, bfloat16 on cpu  {rounded.facts.fingerprint}" in out
    assert "only the dtype or decode mode differs (float32, bfloat16)" in out
    assert "4 pictures embedded by both, 1 by neither" in out
    assert re.search(r"cosine of a picture's two vectors +least 0\.99\d+, 1% 0\.99\d+, median 0\.99\d+", out)
    assert "recall@3" in out
    assert out.endswith("the index can be kept\n")
    assert "s/me" not in out


def test_equal_servers_are_said_to_be_equal(run: Run, module_server: Running, folder: Path) -> None:
    status, out, _ = run(url(module_server), url(module_server), folder)
    assert status == 0
    assert "the fingerprints are equal\n" in out
    assert "least 1.00000" in out


def test_limits_of_ones_own_make_the_index_again(
    run: Run, module_server: Running, rounded: Running, folder: Path
) -> None:
    status, out, _ = run(url(module_server), url(rounded, "any:s%2Fme@"), folder, "--least-cosine", "1")
    assert status == 1
    assert re.search(r"make the index again: a picture's two vectors have a cosine of 0\.9\d+, under 1\n", out)


def test_vectors_of_another_width_make_the_index_again(
    run: Run, module_server: Running, other: Running, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["upgrade-check", url(module_server), url(other), str(folder)])
    out = capsys.readouterr().out
    assert status == 1
    assert "the weights, the model or its preprocessing differ" in out
    assert "vectors have 256 numbers on the old server" in out


def test_a_link_that_leads_nowhere_is_named(run: Run, module_server: Running, folder: Path, tmp_path: Path) -> None:
    for name in ("rocket.jpg", "page.png"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    status, _, err = run(url(module_server), url(module_server), tmp_path)
    assert (status, err) == (0, f"{tmp_path / 'gone.png'}: the link leads nowhere\n")


def test_what_one_server_alone_refuses_is_named(run: Run, loaded: Loaded, module_server: Running, folder: Path) -> None:
    with serving(loaded, max_decode_pixels=100_000) as strict:
        status, out, _ = run(url(module_server), url(strict), folder)
    assert status == 0, out
    assert "2 pictures embedded by both, 1 by neither" in out
    assert "embedded by one alone: " in out
    assert "max_decode_pixels allows 100,000" in out


def test_servers_that_cannot_be_asked_are_named(
    run: Run, rounded: Running, module_server: Running, folder: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for new, why in (
            (nobody, f"{nobody} cannot be asked: "),
            (url(rounded), f"{url(rounded)}/info: send one of the server's keys"),
            ("ftp://a", "ftp://a is no URL of a server"),
            (url(module_server) + "/nowhere", "/nowhere/info"),
        ):
            status, out, err = run(url(module_server), new, folder)
            assert (status, out) == (2, "")
            assert why in err


def test_a_url_that_answers_with_two_fingerprints_has_no_verdict(
    run: Run, loaded: Loaded, module_server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.cli.upgrade.server import RemoteServer, Vector

    found: list[Vector] = []
    embed = RemoteServer.embed

    def balanced(self: RemoteServer, picture: bytes) -> object:
        """As a balancer between two versions."""
        answer = embed(self, picture)
        if isinstance(answer, Vector):
            found.append(answer)
            return Vector(answer.embedding, f"{answer.fingerprint}{'-fast' if len(found) % 2 else ''}")
        return answer

    monkeypatch.setattr(RemoteServer, "embed", balanced)
    status, _, err = run(url(module_server), url(module_server), folder)
    assert status == 2
    assert "answers with the fingerprints" in err


def test_a_folder_with_less_than_two_pictures_is_refused(run: Run, module_server: Running, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    status, _, err = run(url(module_server), url(module_server), tmp_path)
    assert status == 2
    assert f"{tmp_path}{os.sep}".rstrip(os.sep) + " holds 1 pictures" in err
