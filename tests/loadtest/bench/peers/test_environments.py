"""Which peers are installed, and with which versions."""

import re
from pathlib import Path

import pytest

from loadtest.bench.peers import environments
from loadtest.bench.peers.servers import LitServe


@pytest.mark.parametrize("name", environments.NAMES)
def test_what_is_measured_has_its_version(name: str) -> None:
    measured = re.compile(rf"{name}(_emb\[.*\])?==[\d.]+")
    assert any(measured.fullmatch(package) for package in environments.packages(name))


def test_a_peer_that_was_not_installed_or_with_other_versions_says_what_installs_it(tmp_path: Path) -> None:
    stamp = tmp_path / "openvino" / "installed.txt"
    with pytest.raises(environments.PeerUnavailable, match="make peers"):
        environments.environment("openvino", tmp_path)
    stamp.parent.mkdir()
    stamp.write_text("openvino==2021.1\n")
    with pytest.raises(environments.PeerUnavailable, match="make peers"):
        environments.environment("openvino", tmp_path)
    stamp.write_text("\n".join(environments.packages("openvino")) + "\n")
    assert environments.environment("openvino", tmp_path) == stamp.parent


def test_what_fails_to_install_says_its_last_line() -> None:
    with pytest.raises(environments.PeerUnavailable, match="no such thing"):
        environments.run(["sh", "-c", "echo first >&2; echo no such thing >&2; exit 3"])


def test_a_server_of_a_peer_that_is_not_installed_does_not_start(tmp_path: Path) -> None:
    server = LitServe("openvino", tmp_path, "float32", 2, 16, tmp_path / "counts")
    with pytest.raises(environments.PeerUnavailable):
        server.command(tmp_path, 8000)
