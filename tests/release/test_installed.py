"""The wheel, as a user has it: in an environment of its own, without the repository, from any folder."""

import os
import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from tests import pictures
from tests.guard import MARK, marked
from tests.release.conftest import ROOT, Installed
from tests.service.running import until

# The first start of a new environment compiles what it imports.
START_PATIENCE_S = 120.0
SIZES = [(320, 200), (90, 400), (33, 17)]
# The first test waits until PyTorch is fetched and unpacked.
pytestmark = pytest.mark.timeout(1200)


def picture(size: tuple[int, int]) -> bytes:
    return pictures.save(Image.radial_gradient("L").resize(size).convert("RGB"), "PNG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, beside modules of the user's that have the names of ours."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("model", "service", "loadtest"):
        (folder / f"{name}.py").write_text("raise ImportError('a module of the user')")
    for index, size in enumerate(SIZES):
        (folder / f"{index}.png").write_bytes(picture(size))
    return folder


@pytest.fixture(scope="module")
def client(installed: Installed, folder: Path) -> Iterator[httpx.Client]:
    """A server with engine and HTTP in processes of their own. At its end it leaves none of them behind."""
    command = installed.command("packlight", "serve", "--port", 0, "--engine", "process", "--http-workers", 2)
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(command, cwd=folder, env=installed.environ, stderr=file) as server:
        try:
            until(lambda: server.poll() is not None or "ready on http" in log.read_text(), patience_s=START_PATIENCE_S)
            address = re.search(r"ready on (http://127\.0\.0\.1:\d+)", log.read_text())
            assert address, log.read_text()
            with httpx.Client(base_url=address[1], trust_env=False, timeout=60) as client:
                yield client
            server.terminate()
            assert server.wait(60) == 0, log.read_text()
        finally:
            server.kill()
    until(lambda: not list(marked(installed.environ[MARK])))


def vectors(answer: httpx.Response) -> np.ndarray:
    return np.asarray(np.load(BytesIO(answer.raise_for_status().content)))


@pytest.fixture(scope="module")
def vectors_of_the_checkout(installed: Installed, folder: Path) -> np.ndarray:
    """By the code of the repository with the packages of the wheel's environment."""
    out = folder / "checkout.npy"
    files = [folder / f"{index}.png" for index in range(len(SIZES))]
    run = installed.run("python", "-m", "service", "embed", *files, "--out", out, cwd=ROOT, PYTHONPATH=str(ROOT))
    assert run.returncode == 0, run.stderr
    return np.asarray(np.load(out))


def loaded_by(page: httpx.Response) -> set[str]:
    """Addresses of what a page of HTML loads: scripts, styles, pictures."""
    found = re.findall(r"""<(?:script|link|img)\b[^>]*?\b(?:src|href)=["']([^"'#]+)""", page.raise_for_status().text)
    return {urljoin(str(page.url), target) for target in found if not target.startswith("data:")}


def test_it_says_its_version(installed: Installed, tmp_path: Path) -> None:
    run = installed.run("packlight", "--version", cwd=tmp_path)
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert run.stdout == f"packlight {version[1]}\n"


def test_a_folder_is_embedded_with_the_bits_of_the_checkout(
    installed: Installed, folder: Path, vectors_of_the_checkout: np.ndarray
) -> None:
    run = installed.run("packlight", "embed", *sorted(folder.glob("*.png")), "--out", "vectors.npy", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "3 embedded" in run.stdout + run.stderr
    made = np.load(folder / "vectors.npy")
    assert made.tobytes() == vectors_of_the_checkout.tobytes()


def test_it_serves_the_bits_of_the_checkout(
    installed: Installed, folder: Path, client: httpx.Client, vectors_of_the_checkout: np.ndarray
) -> None:
    assert len(list(marked(installed.environ[MARK]))) > 3, "the server, two of HTTP and an engine"
    assert client.get("/readyz").status_code == 200
    assert client.get("/info").json()["versions"]["packlight"]
    assert client.get("/openapi.json").json()["paths"]["/embed"]
    for index, vector in enumerate(vectors_of_the_checkout):
        png = (folder / f"{index}.png").read_bytes()
        answer = client.post(
            "/embed", content=png, headers={"Content-Type": "image/png", "Accept": "application/x-npy"}
        )
        assert vectors(answer)[0].tobytes() == vector.tobytes()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_comes_with_all_that_it_loads(path: str, client: httpx.Client) -> None:
    loaded = loaded_by(client.get(path))
    assert loaded
    assert {urlsplit(address).netloc for address in loaded} == {client.base_url.netloc.decode()}
    for address in loaded:
        assert client.get(address).status_code == 200, address


def test_its_extra_sends_load(installed: Installed, client: httpx.Client, tmp_path: Path) -> None:
    # `python -m` looks into the current folder first; this one has no modules.
    options = ["--mix", "thumbnails", "--rate", 4, "--duration", 2, "--quiet", "--html", "report.html"]
    run = installed.run("python", "-m", "loadtest", "run", "--url", client.base_url, *options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "<style" in (tmp_path / "report.html").read_text()


def test_nothing_of_the_repository_is_in_its_way(installed: Installed, tmp_path: Path) -> None:
    program = "import model, service, loadtest; print(model.__file__, service.__file__, loadtest.__file__)"
    run = installed.run("python", "-c", program, cwd=tmp_path)
    places = run.stdout.split()
    assert len(places) == 3, run.stderr
    assert all(Path(place).is_relative_to(installed.programs.parent) for place in places)
    assert not any(os.fspath(ROOT) in value for value in installed.environ.values())
