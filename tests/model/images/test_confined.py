"""Images that are decoded in worker processes: the same answers, and what happens when a process ends."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.child_process import children_of, module_command
from model.errors import ImageError, ImageTooLarge, UndecodableImage
from model.images import confined, reader
from model.images import workers as pool
from model.images.decode import decode_patches, read_header
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, plan_image
from tests.hostile import j2k_coded
from tests.pictures import exif, picture, save
from tests.service.running import PATIENCE_S, until

LIMIT = 1_000_000
NAFLEX = Geometry.for_naflex(16, 64)
AVIF = save(picture(24, 40), "AVIF")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, which only Linux has")


@pytest.fixture
def images() -> Iterator[ImageReader]:
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as made:
        yield made


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def plan_of(size: tuple[int, int]) -> ImagePlan:
    return plan_image(size, geometry=NAFLEX, budget=Budget.of_tokens(64, 16), strategy="naflex")


def decode(images: ImageReader, data: bytes, size: tuple[int, int] = (24, 40)) -> NDArray[np.uint8]:
    return images.decode_patches(data, plan_of(size), geometry=NAFLEX)[1]


def workers(pid: int | None = None) -> list[int]:
    """The worker processes of a process, by default of this one, in the order of their start."""
    return sorted(child for child in children_of(pid or os.getpid()) if b"images.worker" in command_line(child))


def command_line(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until_called(images: ImageReader) -> None:
    """Returns once the only process that decodes has a call."""
    (worker,) = images._confined._pixels._running
    until(lambda: worker.retires)


def stop(pid: int) -> None:
    """From now on the process does nothing, until it is killed."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "TIFF"])
def test_a_worker_gives_what_a_thread_gives(format: str, images: ImageReader) -> None:
    data = save(picture(24, 40), format, **({"exif": exif(6)} if format != "JPEG2000" else {}))
    header = images.read_header(data)
    assert header == read_header(data, max_decode_pixels=LIMIT)
    new_plan, rows = images.decode_patches(data, plan_of(header.size), geometry=NAFLEX)
    wanted = decode_patches(data, plan_of(header.size), geometry=NAFLEX, max_decode_pixels=LIMIT)
    assert new_plan == wanted[0]
    np.testing.assert_array_equal(rows, wanted[1])
    assert rows.flags.writeable
    assert len(workers()) == 2


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_other_pictures_need_no_process_unless_they_are_large(
    format: str, images: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save(picture(24, 40), format)
    assert images.read_header(data).size == (24, 40)
    rows = decode(images, data)
    assert not workers()
    monkeypatch.setattr(reader, "MAX_THREAD_PIXELS", 24 * 40 - 1)
    np.testing.assert_array_equal(decode(images, data), rows)
    assert len(workers()) == 1


def test_a_large_file_needs_a_process_for_its_header(images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(picture(24, 40), "JPEG")
    monkeypatch.setattr(reader, "MAX_THREAD_BYTES", len(data) - 1)
    assert images.read_header(data).size == (24, 40)
    assert len(workers()) == 1


def test_a_large_png_needs_no_process(images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(picture(24, 40), "PNG")
    monkeypatch.setattr(reader, "MAX_THREAD_BYTES", len(data) - 1)
    assert images.read_header(data).size == (24, 40)
    decode(images, data)
    assert not workers()


def test_metadata_behind_the_pixels_turn_the_plan(images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(picture(24, 40), "PNG", exif=exif(6))
    monkeypatch.setattr(reader, "MAX_THREAD_PIXELS", 0)
    plan, _ = images.decode_patches(data, plan_of((24, 40)), geometry=NAFLEX)
    assert plan == plan_of((40, 24))


def test_a_worker_is_kept_for_the_next_picture(images: ImageReader) -> None:
    decode(images, AVIF)
    (worker,) = workers()
    decode(images, AVIF)
    assert workers() == [worker]


def test_a_worker_outlives_the_thread_whose_picture_started_it(images: ImageReader) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(1) as brief:
            brief.submit(decode, images, AVIF).result()
        worker = workers()
        assert len(worker) == 1
        decode(images, AVIF)
        assert workers() == worker


def test_a_worker_refuses_in_the_words_of_a_thread(images: ImageReader) -> None:
    for data in (AVIF[:100], save(picture(1001, 1000), "TIFF"), save(picture(1, 65_536), "TIFF")):
        with pytest.raises(ImageError) as wanted:
            read_header(data, max_decode_pixels=LIMIT)
        with pytest.raises(ImageError) as raised:
            images.read_header(data)
        assert (type(raised.value), str(raised.value)) == (type(wanted.value), str(wanted.value))


def test_a_worker_that_dies_idle_is_replaced_unseen(images: ImageReader) -> None:
    rows = decode(images, AVIF)
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: state(worker) == "Z")
    np.testing.assert_array_equal(decode(images, AVIF), rows)
    assert workers() != [worker]


@pytest.mark.parametrize(
    ("signal_number", "error", "message"),
    [
        (signal.SIGSEGV, UndecodableImage, "this AVIF cannot be decoded: the decoder crashed"),
        (signal.SIGKILL, OSError, "the process that decoded this AVIF was killed"),
    ],
)
def test_a_worker_that_dies_loses_its_own_picture_only(
    signal_number: signal.Signals,
    error: type[Exception],
    message: str,
    images: ImageReader,
    thread: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = decode(images, AVIF)
    (worker,) = workers()
    stop(worker)
    lost = thread.submit(decode, images, AVIF)
    until_called(images)
    assert images.read_header(AVIF).size == (24, 40)  # waits for no pixels
    os.kill(worker, signal_number)
    os.kill(worker, signal.SIGCONT)
    with pytest.raises(error, match=message):
        lost.result(PATIENCE_S)
    np.testing.assert_array_equal(decode(images, AVIF), rows)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert signal_number.name in caplog.text


def test_a_worker_that_hangs_is_killed(images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = decode(images, AVIF)
    (worker,) = workers()
    stop(worker)
    (held,) = images._confined._pixels._running
    # Only of this one: a worker that starts on a loaded machine takes longer.
    held._socket.settimeout(0.5)
    monkeypatch.setattr(pool, "_LAST_BREATH_S", 0.01)
    with pytest.raises(UndecodableImage, match="hung"):
        decode(images, AVIF)
    assert not workers()
    np.testing.assert_array_equal(decode(images, AVIF), rows)


def test_a_picture_that_takes_too_much_processor_time_is_refused(
    images: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (1000, 1000)
    endless = j2k_coded(layers=65_535, precinct=3, size=size)
    with monkeypatch.context() as limits:
        limits.setattr(confined, "_CPU_S", 0.02)
        limits.setattr(confined, "_CPU_S_A_MEGAPIXEL", 0)
        with pytest.raises(ImageTooLarge, match="this JPEG 2000 takes more than .* s of processor time"):
            decode(images, endless, size)
    assert not workers()
    decode(images, AVIF)


def test_a_picture_that_takes_too_much_memory_is_refused(images: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (1000, 1000)
    data = save(picture(*size), "TIFF")
    decode(images, AVIF)
    (worker,) = workers()
    with monkeypatch.context() as limits:
        for name in ("_LIBRARY_BYTES", "_BYTES_A_PIXEL", "_BYTES_A_BYTE"):
            limits.setattr(confined, name, 0)
        with pytest.raises(ImageTooLarge, match="max_decode_pixels=1000000"):
            decode(images, data, size)
    assert decode(images, data, size).any()
    assert workers() == [worker]


def test_a_mistake_of_ours_in_a_worker_is_logged_and_refuses_the_picture(
    images: ImageReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = "import sys; from model.images import worker; worker.read_header = None; worker.main(sys.argv[1])"
    monkeypatch.setattr(pool, "module_command", lambda module: [sys.executable, "-c", program])
    with pytest.raises(UndecodableImage, match="the decoder failed"):
        images.read_header(AVIF)
    assert "TypeError" in caplog.text


@pytest.mark.parametrize("command", [["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]])
def test_a_worker_that_cannot_start_is_an_error_of_the_system(
    command: list[str], images: ImageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pool, "module_command", lambda module: command)
        with pytest.raises(OSError, match="No such file|ended with status 3 at its start"):
            images.read_header(AVIF)
    assert images.read_header(AVIF).size == (24, 40)


def test_as_many_pictures_are_decoded_at_once_as_there_may_be_processes() -> None:
    with closing(ImageReader(processes=2, max_decode_pixels=LIMIT)) as images, ThreadPoolExecutor(6) as threads:
        for _ in threads.map(lambda _: decode(images, AVIF), range(24)):
            assert len(workers()) <= 2


def test_closing_ends_all_workers_and_the_calls_under_way(images: ImageReader, thread: ThreadPoolExecutor) -> None:
    images.read_header(AVIF)
    decode(images, AVIF)
    (_, worker) = workers()
    stop(worker)
    lost = thread.submit(decode, images, AVIF)
    until_called(images)
    images.close()
    assert not workers()
    with pytest.raises(OSError, match="was killed"):
        lost.result(PATIENCE_S)
    with pytest.raises(OSError, match="no image"):
        decode(images, AVIF)


# It starts both workers and waits. It imports none of the tests, which load PyTorch.
PARENT = f"""
import os, time
from model.child_process import children_of
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
images, geometry = ImageReader(processes=1, max_decode_pixels={LIMIT}), Geometry.for_naflex(16, 64)
header = images.read_header({AVIF!r})
plan = plan_image(header.size, geometry=geometry, budget=Budget.of_tokens(64, 16), strategy="naflex")
images.decode_patches({AVIF!r}, plan, geometry=geometry)
print(*children_of(os.getpid()), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_workers_die_with_their_parent_even_while_they_cannot_notice() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers(parent.pid) == sorted(pids)
        assert len(pids) == 2
        stop(min(pids))
        parent.kill()
        until(lambda: not any(map(command_line, pids)))


def test_a_worker_ends_when_its_socket_is_closed() -> None:
    command = [*module_command("model.images.worker"), str(os.getpid())]
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    ours.close()
    assert child.wait(PATIENCE_S) is not None


def test_a_worker_has_none_of_its_parents_files(images: ImageReader, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        images.read_header(AVIF)
        (worker,) = workers()
        folder = Path(f"/proc/{worker}/fd")
        targets = {os.readlink(link) for link in folder.iterdir()}
        assert file.name not in targets
        assert len(targets) == 2  # its socket and the null device
