"""The configuration of nginx, against the settings that it has to agree with, and by nginx where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.settings.settings import Settings
from tests.deploy.files import read

CONF = read("deploy/balancer/nginx.conf")


def value(name: str) -> str:
    found: list[str] = re.findall(rf"^\s*{name} (.+);$", CONF, flags=re.MULTILINE)
    assert len(found) == 1, name
    return found[0]


def test_it_takes_bodies_as_large_and_deadlines_as_long_as_the_server() -> None:
    default = {name: field.default for name, field in Settings.model_fields.items()}
    assert int(value("client_max_body_size").removesuffix("m")) * 1024**2 == default["max_upload_bytes"]
    assert int(value("proxy_read_timeout").removesuffix("s")) > default["default_timeout_ms"] / 1000


def test_it_tries_another_server_for_a_post_and_takes_none_out() -> None:
    assert {"error", "http_429", "http_503", "non_idempotent"} <= set(value("proxy_next_upstream").split())
    assert re.findall(r"^\s*server \S+ (.+);$", CONF, flags=re.MULTILINE) == ["max_fails=0"] * 2


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_reads_it(tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], check=True, capture_output=True
    )
    (tmp_path / "packlight.conf").write_text(CONF.replace("/etc/nginx/", f"{tmp_path}/"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ include {tmp_path}/packlight.conf; }}"
    )
    asked = subprocess.run(["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
