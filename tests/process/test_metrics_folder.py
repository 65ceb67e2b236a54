"""A server of several processes whose metrics folder is taken away, or lies on a disk that is full."""

import os
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests import pictures
from tests.process.programs.small_disk import UNSHARE
from tests.process.server import Server, is_there, running
from tests.waiting import until

IMAGE = pictures.save(pictures.picture(48, 64), "PNG")
SMALL_DISK = ["-m", "tests.process.programs.small_disk"]


def may_mount() -> bool:
    return bool(shutil.which(UNSHARE[0])) and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="the system lets nobody mount a tmpfs")


def test_a_server_that_loses_its_metrics_answers_what_it_accepted_and_exits() -> None:
    # The wait outlasts the silence after which HTTP processes give their parent up.
    options = ("--max-wait-ms", "7000", "--hang-after-s", "3")
    with running(*options) as server, ThreadPoolExecutor(1) as pool:
        children = server.children()
        waiting = pool.submit(server.embed, IMAGE)
        until(lambda: server.metric("queue_images") == 1)
        (folder,) = Path(tempfile.gettempdir()).glob(f"packlight-metrics-{server.process.pid}-*")
        shutil.rmtree(folder)
        assert server.wait() == 1
        assert waiting.result().status_code == 200
        assert 0 < server.log.find(f"{folder} (TMPDIR)") < server.log.find("stopping")
        assert "Traceback" not in server.log
        assert not any(map(is_there, children))


@needs_mount
def test_a_full_disk_refuses_to_start_and_names_the_folder_and_its_variable(tmp_path: Path) -> None:
    server = Server(SMALL_DISK, TMPDIR=str(tmp_path), TEST_TMPFS_BYTES="65536")
    try:
        assert server.wait() == 2
        assert f"{tmp_path} (TMPDIR) cannot hold it: No space left on device" in server.log.splitlines()[-1]
    finally:
        server.close()


@needs_mount
def test_a_disk_that_fills_up_under_a_server_kills_none_of_its_processes(tmp_path: Path) -> None:
    with running(program=SMALL_DISK, TMPDIR=str(tmp_path), TEST_TMPFS_BYTES="8m") as server:
        inside = Path(f"/proc/{server.process.pid}/root{tmp_path}")
        with suppress(OSError), open(inside / "fill", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        children = server.children()
        # Labels that are used for the first time take room in the files.
        for path in ("/livez", "/readyz", "/info", "/docs", "/openapi.json", "/v1/models", "/nowhere"):
            server.http.get(path)
            server.http.delete(path)
        assert server.embed(IMAGE).status_code == 200
        assert server.metric("charged_tokens_total") > 0
        assert server.children() == children
        (http_process,) = server.http_processes
        os.kill(http_process, signal.SIGKILL)
        until(lambda: not is_there(http_process) and server.is_ready())
        assert server.embed(IMAGE).status_code == 200
