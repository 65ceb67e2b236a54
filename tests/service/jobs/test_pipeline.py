"""Pictures in, rows out: in order, once each, with an error for each that fails and a bound on what is held."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.bench.accelerator.device import EmulatedRunner, PackSeconds
from model.errors import DeviceLost
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.sizing.geometry import Geometry
from service.jobs.decoding import digest
from service.jobs.ledger import Ledger
from service.jobs.rows import Decoded, Embedded, Failed, Picture
from service.settings.names import SettingsError
from tests.service.jobs.parts import INSTANT, RECIPE, Device, expected, pipeline, png, rows_of
from tests.service.running import until
from tests.service.threaded_device import ThreadedDevice


def vector(data: bytes) -> bytes:
    """As the device gives it, not scaled."""
    made = expected(data)
    device = Device()
    (row,) = rows_of([Picture("x", data)], device)
    assert isinstance(row, Embedded)
    assert np.array_equal(row.embedding, made)
    return device.segments[0]


def test_rows_stand_in_the_order_of_the_source_with_their_own_vectors() -> None:
    data = [png(number) for number in range(40)]
    rows = rows_of(Picture(f"{number}.png", each) for number, each in enumerate(data))
    assert [row.path for row in rows] == [f"{number}.png" for number in range(40)]
    for row, each in zip(rows, data, strict=True):
        assert isinstance(row, Embedded)
        assert np.array_equal(row.embedding, expected(each))


def test_files_are_read_and_those_that_cannot_be_have_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(1)[:60])
    names = ("a.png", "missing.png", "b.png", "nul\0.png", ".")
    rows = rows_of(Picture(name, tmp_path / name) for name in names)
    assert [type(row) for row in rows] == [Embedded, Failed, Failed, Failed, Failed]
    assert [row.reason for row in rows if isinstance(row, Failed) and row.sha256 is None] == [
        "No such file or directory", "No such file or directory", "Is a directory",
    ]  # fmt: skip


def test_a_device_that_works_by_itself_gives_each_picture_its_own_vector_or_error() -> None:
    data = [png(number) for number in range(40)]
    device = Device(bad=[vector(data[7]), vector(data[30])], most_tokens=40)
    with pipeline(device, driven=ThreadedDevice) as job:
        rows = list(job.rows(Picture(f"{number}.png", each) for number, each in enumerate(data)))
    assert [row.path for row in rows] == [f"{number}.png" for number in range(40)]
    assert [number for number, row in enumerate(rows) if isinstance(row, Failed)] == [7, 30]
    for row, each in zip(rows, data, strict=True):
        assert isinstance(row, Failed) or (isinstance(row, Embedded) and np.array_equal(row.embedding, expected(each)))


def test_a_batch_has_its_vectors_though_the_next_pack_is_under_way() -> None:
    data = [png(number) for number in range(20)]
    device = Device(bad=[vector(data[3])])
    with pipeline(device, driven=ThreadedDevice) as job:
        decoded = [job.decoder.decode(str(number), each, sha256=digest(each)) for number, each in enumerate(data)]
        rows = {row.path: row for row in job.packs.embed([row for row in decoded if isinstance(row, Decoded)])}
    assert sorted(map(int, rows)) == list(range(20))
    for number, each in enumerate(data):
        row = rows[str(number)]
        assert isinstance(row, Failed) if number == 3 else np.array_equal(row.embedding, expected(each))  # type: ignore[union-attr]


def test_a_source_says_what_it_could_not_read() -> None:
    rows = rows_of([Picture("a"), Picture("b", error="the shard is cut"), Picture("c", png(1))])
    assert rows[1] == Failed("b", "the shard is cut")
    assert isinstance(rows[0], Failed)
    assert isinstance(rows[2], Embedded)


def test_the_same_bytes_are_embedded_once() -> None:
    device = Device()
    rows = rows_of([Picture(f"{number}.png", png(number % 3)) for number in range(60)], device)
    assert [row.path for row in rows] == [f"{number}.png" for number in range(60)]
    assert len({row.embedding.tobytes() for row in rows if isinstance(row, Embedded)}) == 3
    # A copy that comes when the first one's row is written is embedded again: nothing is kept without a ledger.
    assert len(device.segments) < 60
    assert len(set(device.segments)) == 3


def test_with_a_ledger_the_same_bytes_are_embedded_once_however_far_apart(tmp_path: Path) -> None:
    device = Device()
    with Ledger(tmp_path / "x.npy", RECIPE.meaning) as ledger:
        rows = rows_of([Picture(f"{number}.png", png(number % 3)) for number in range(60)], device, ledger)
        assert (len(rows), len(device.segments), ledger.kept) == (60, 3, 3)
        again = rows_of([Picture(f"{number}.png", png(number)) for number in range(4)], device, ledger)
        assert [type(row) for row in again] == [Embedded] * 4
        assert (len(device.segments), ledger.found) == (4, 3)


def test_broken_copies_of_one_picture_all_fail() -> None:
    rows = rows_of([Picture(f"{number}", png(1)[:-30]) for number in range(5)])
    assert [row.path for row in rows if isinstance(row, Failed)] == list("01234")


def test_a_picture_that_the_device_fails_on_is_found_and_the_others_keep_their_vectors() -> None:
    data = [png(number) for number in range(12)]
    rows = rows_of([Picture(str(number), each) for number, each in enumerate(data)], Device(bad=[vector(data[5])]))
    assert [isinstance(row, Failed) for row in rows] == [number == 5 for number in range(12)]
    for row, each in zip(rows, data, strict=True):
        assert isinstance(row, Failed) or np.array_equal(row.embedding, expected(each))


def test_a_pack_that_the_device_has_no_memory_for_is_halved() -> None:
    rows = rows_of([Picture(str(number), png(number)) for number in range(30)], Device(most_tokens=20))
    assert [row.path for row in rows if isinstance(row, Embedded)] == [str(number) for number in range(30)]


class Dead(EmulatedRunner):
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        raise RuntimeError("no kernel works")


def test_a_device_on_which_nothing_works_ends_the_job_before_every_picture_has_failed() -> None:
    taken = []

    def source() -> Iterator[Picture]:
        for number in range(10**6):
            taken.append(number)
            yield Picture(str(number), png(number % 97) + bytes(4) + number.to_bytes(4))

    with pipeline(Dead(INSTANT), ahead_bytes=2**18) as job, pytest.raises(DeviceLost, match="on every picture"):
        list(job.rows(source()))
    assert len(taken) < 10_000


def test_a_source_that_fails_ends_the_job_and_its_threads() -> None:
    def source() -> Iterator[Picture]:
        yield Picture("a", png(1))
        raise ValueError("the source is broken")

    before = threading.active_count()
    with pipeline() as job, pytest.raises(ValueError, match="the source is broken"):
        list(job.rows(source()))
    until(lambda: threading.active_count() <= before + 1)  # the pool that starts processes


def test_rows_that_nobody_takes_any_more_leave_no_thread() -> None:
    before = threading.active_count()
    with pipeline() as job:
        rows = job.rows(Picture(str(number), png(number)) for number in range(10**6))
        next(rows)
        rows.close()
    until(lambda: threading.active_count() <= before + 1)


class Held(EmulatedRunner):
    """Waits in every pack until it is let go."""

    def __init__(self) -> None:
        super().__init__(PackSeconds(0, 0, 0))
        self.entered, self.free = threading.Event(), threading.Event()

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self.entered.set()
        assert self.free.wait(60)
        return super().run(batch, tokens=tokens)


def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    """Pictures of 40 kB each, of which rows of 12 kB are held, while the device stands still."""
    device, taken = Held(), 0

    def source() -> Iterator[Picture]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield Picture(str(number), png(number) + bytes(40_000))

    with pipeline(device, ahead_bytes=400_000) as job:
        rows = job.rows(source())
        thread = threading.Thread(target=lambda: list(rows), daemon=True)
        thread.start()
        assert device.entered.wait(60)
        # 400,000 bytes of rows fill the room, with what the packs on the device hold; one picture waits outside.
        most = 400_000 // (16 * 768) + 3 * 64
        until(lambda: taken > 8)
        seen = taken
        assert seen <= most
        device.free.set()
        thread.join(60)
    assert taken == 200


def test_a_file_over_the_bound_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png(1) + bytes(2**20))
    (tmp_path / "small.png").write_bytes(png(2))
    names = ("large.png", "small.png")
    rows = rows_of(Picture(name, tmp_path / name) for name in names)
    assert isinstance(rows[0], Failed)
    assert "--ahead-bytes" in rows[0].reason
    assert isinstance(rows[1], Embedded)


def test_a_file_that_grew_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    monkeypatch.setattr("service.jobs.pipeline.size_of", lambda path: 9)
    (row,) = rows_of([Picture("a.png", tmp_path / "a.png")])
    assert row == Failed("a.png", "the file grew before it was read")


def test_a_pipe_that_nobody_writes_does_not_keep_a_job_from_ending(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writers: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):
            writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    with pipeline() as job:
        rows = job.rows([Picture("a", b"no picture"), Picture("pipe", pipe)])
        next(rows)
        until(is_read)
        closing = threading.Thread(target=rows.close, daemon=True)
        closing.start()
        closing.join(20)
        ended = not closing.is_alive()
        os.close(writers[0])
    assert ended


def test_recipes_of_other_vectors_have_another_meaning() -> None:
    others = [
        replace(RECIPE, fingerprint="f"), replace(RECIPE, normalize=False), replace(RECIPE, strategy="native"),
        replace(RECIPE, budget=replace(RECIPE.budget, token_cap=17)),
        replace(RECIPE, budget=replace(RECIPE.budget, min_pixels=1)),
    ]  # fmt: skip
    assert len({each.meaning for each in (RECIPE, *others)}) == 6
    assert replace(RECIPE, budget=replace(RECIPE.budget, bound="max_pixels")).meaning == RECIPE.meaning
    # Small pictures are enlarged to it.
    qwens = [Geometry.for_merging(14, 2, min_pixels=least, max_pixels=10**6) for least in (3_136, 65_536)]
    assert len({replace(RECIPE, geometry=each, strategy="native").meaning for each in qwens}) == 2


def test_a_job_for_whose_threads_there_is_no_room_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("decode"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(SettingsError, match=r"decode_threads=\d+ is more than the system allows"):
        rows_of([Picture("a", png(1))])
