"""Java's HttpClient, curl and undici. `tests/clients/install.sh` installs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.asking import BIG, PATH, PHOTO, Seen, data_uri, expected
from tests.service.running import PATIENCE_S, Running

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
# Debian's packages have their modules in the second.
NODE_PATH = f"{ROOT / 'build/clients/node_modules'}:/usr/share/nodejs"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Names of the photo and of the big image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "photo.jpg").write_bytes(PHOTO)
    (folder / "big.bmp").write_bytes(BIG)
    return str(folder / "photo.jpg"), str(folder / "big.bmp")


def ran(program: str, *options: str, **environment: str) -> list[str]:
    """The lines that a program prints."""
    if shutil.which(program) is None:
        pytest.fail(f"there is no {program}: run tests/clients/install.sh, which installs it or says how to")
    command = [program, *options]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def embed_url(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}{PATH}"


def answers(server: Running) -> dict[str, str]:
    """The line of each answer by its name."""
    return {
        "photo": f"photo 200 {expected(server, PHOTO).decode()}",
        "big": f"big 200 {expected(server, BIG).decode()}",
        "livez": 'livez 200 {"status":"alive"}',
        "head": "head 200 ",
    }


def test_java_asks_for_an_upgrade_and_is_answered(server: Running, seen: Seen, files: tuple[str, str]) -> None:
    wanted = answers(server)
    seen.heads.clear()
    seen.connections = 0
    lines = ran("java", str(PROGRAMS / "Ask.java"), embed_url(server), *files)
    assert lines == [wanted[name] for name in ("photo", "photo", "photo", "photo", "big", "big", "livez", "head")]
    upgrades = [head.get("upgrade") for head in seen.heads]
    assert upgrades[0] == upgrades[-1] == "h2c"
    assert "transfer-encoding" in seen.heads[5]
    assert seen.connections == 6, "three requests of the first client on one connection, and one of each other"


def test_undici_is_answered(server: Running, seen: Seen, files: tuple[str, str]) -> None:
    wanted = answers(server)
    seen.connections = 0
    lines = ran("node", str(PROGRAMS / "ask.cjs"), embed_url(server), *files, NODE_PATH=NODE_PATH)
    assert lines == [wanted[name] for name in ("photo", "photo", "big", "big", "livez", "head", "photo", "big")]
    assert seen.connections == 2, "one of the client, one of fetch"


def test_curl_asks_for_an_upgrade_and_is_answered(
    server: Running, seen: Seen, files: tuple[str, str], tmp_path: Path
) -> None:
    wanted = [expected(server, image).decode() for image in (PHOTO, BIG)]
    photo, big = files
    body = tmp_path / "body.json"
    body.write_text(f'{{"images": ["{data_uri(PHOTO)}"]}}')
    url = embed_url(server)
    every = ["--silent", "--show-error", "--fail", "--http2", "--write-out", "\n", url]
    ways = [
        (0, ["--data-binary", f"@{photo}", "--header", "Content-Type: image/jpeg"]),
        (0, ["--form", f"image=@{photo}"]),
        (0, ["--data-binary", f"@{body}", "--header", "Content-Type: application/json"]),
        (1, ["--data-binary", f"@{big}", "--header", "Content-Type: image/bmp"]),
        (1, ["--form", f"image=@{big}"]),
        (
            1,
            [
                "--data-binary",
                f"@{big}",
                "--header",
                "Content-Type: image/bmp",
                "--header",
                "Transfer-Encoding: chunked",
            ],
        ),
    ]
    for which, way in ways:
        seen.heads.clear()
        seen.connections = 0
        # Twice on one connection.
        assert ran("curl", *every, *way, "--next", *every, *way) == [wanted[which]] * 2
        assert (len(seen.heads), seen.connections) == (2, 1)
        assert seen.heads[0]["upgrade"] == "h2c", "this curl knows no HTTP/2"


def test_curl_asks_for_the_head_alone(server: Running) -> None:
    lines = ran(
        "curl", "--silent", "--show-error", "--fail", "--http2", "--head", f"http://127.0.0.1:{server.port}/livez"
    )
    assert lines[0].split()[:2] == ["HTTP/1.1", "200"]
    assert "content-length: 18" in lines
