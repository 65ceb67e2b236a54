"""What the rest of the service sees of the worker processes that decode images."""

import asyncio
import logging
import random
import sys
import threading
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from model.images import workers
from model.images.decode import DecodeMode
from model.images.reader import ImageReader
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan
from service.errors import Unavailable
from service.metrics import Metrics
from service.requests.decoder import Decoder, DecodeRoom
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.pictures import picture, save
from tests.service.running import NAFLEX, PATIENCE_S, plan_of

AVIF = save(picture(24, 40), "AVIF")


def test_no_room_for_a_process_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "module_command", lambda module: ["/no/such/program"])
    decoder = Decoder(threads=1, max_decode_pixels=1000, geometry=Geometry.for_naflex(16, 64))
    with pytest.raises(Unavailable, match="no room"):
        asyncio.run(decoder.header(AVIF))
    decoder.close()


def test_a_request_needs_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no room for one by then."""
    decoder = Decoder(threads=2, max_decode_pixels=1000, geometry=Geometry.for_naflex(16, 64))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert asyncio.run(decoder.header(AVIF)).size == (24, 40)
        with pytest.raises(SettingsError, match="decode_threads=3 is more than the system allows"):
            Decoder(threads=3, max_decode_pixels=1000, geometry=Geometry.for_naflex(16, 64))
    decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, which only Linux has")
def test_the_memory_and_files_of_workers_count_as_the_servers() -> None:
    metrics = Metrics()
    names = ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total")

    def values() -> list[float]:
        return [metrics.registry.get_sample_value(name) or 0.0 for name in names]

    before = values()
    images = ImageReader(processes=1, max_decode_pixels=1000)
    images.read_header(AVIF)
    during = values()
    images.close()
    after = values()
    assert during[0] > before[0] + 10_000_000
    assert during[1] > before[1] + 3
    assert before[2] < during[2] <= after[2]
    assert after[1] == before[1]
    assert metrics.registry.get_sample_value("process_start_time_seconds")


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_rows_are_written_to_the_memory_that_is_given(format: str) -> None:
    """A TIFF is decoded in a process of its own."""
    data, made = save(picture(48, 64), format), []

    def new_rows(tokens: int, width: int) -> NDArray[np.uint8]:
        made.append(np.zeros((tokens, width), np.uint8))
        return made[-1]

    async def main(decoder: Decoder) -> NDArray[np.uint8]:
        _, rows = await decoder.patches(data, plan_of(data, 12), "exact")
        decoder.close()
        return rows

    given, own = (
        asyncio.run(main(decoder))
        for decoder in (
            Decoder(threads=1, max_decode_pixels=10**6, geometry=NAFLEX, rows=new_rows),
            Decoder(threads=1, max_decode_pixels=10**6, geometry=NAFLEX),
        )
    )
    assert given is made[0]
    assert np.array_equal(given, own)


def test_a_decoder_of_another_model_has_the_same_threads_and_that_before_goes_on() -> None:
    data, made = save(picture(48, 64), "PNG"), []

    def new_rows(tokens: int, width: int) -> NDArray[np.uint8]:
        made.append(np.zeros((tokens, width), np.uint8))
        return made[-1]

    async def main() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        # Threads of other tests may end meanwhile.
        others = set(threading.enumerate())
        before = Decoder(threads=1, max_decode_pixels=10**6, geometry=NAFLEX)
        threads = set(threading.enumerate()) - others
        after = before.of_model(NAFLEX, rows=new_rows)
        _, old = await before.patches(data, plan_of(data, 12), "exact")
        _, new = await after.patches(data, plan_of(data, 12), "exact")
        assert set(threading.enumerate()) - others == threads
        after.close()
        return old, new

    old, new = asyncio.run(main())
    assert np.array_equal(old, new)
    # Each writes to rows of its own model.
    assert new is made[0]
    assert len(made) == 1


class WatchedDecoder(Decoder):
    """Holds what is decoded until `free` is set, and counts the bytes of pixels that are held at once."""

    free: threading.Event
    entered: threading.Semaphore
    most_at_once = at_once = 0
    begun: int

    def _decode(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        self.at_once += 1
        self.begun += 1
        self.entered.release()
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.free.wait(PATIENCE_S)
        self.at_once -= 1
        return super()._decode(data, plan, decode)


def watched(room_bytes: int) -> WatchedDecoder:
    decoder = WatchedDecoder(threads=4, max_decode_pixels=10**6, geometry=NAFLEX, room_bytes=room_bytes)
    decoder.free, decoder.entered, decoder.begun = threading.Event(), threading.Semaphore(0), 0
    return decoder


@pytest.mark.parametrize(("pictures", "at_once"), [(0.5, 1), (1, 1), (2, 2), (3.9, 3), (100, 4)])
def test_no_more_pictures_are_decoded_at_once_than_there_is_room_for(pictures: float, at_once: int) -> None:
    """Four threads, and room for so many pictures of 12 bytes a pixel; one that is larger than all of it runs alone."""
    data = save(picture(48, 64), "PNG")
    decoder = watched(int(pictures * 48 * 64 * 12))

    async def main() -> None:
        calls = [asyncio.create_task(decoder.patches(data, plan_of(data, 12), "exact")) for _ in range(8)]
        for _ in range(at_once):
            await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        decoder.free.set()
        await asyncio.gather(*calls)

    asyncio.run(main())
    decoder.close()
    assert decoder.most_at_once == at_once


def test_a_caller_who_leaves_gives_room_back_only_once_its_thread_has_ended() -> None:
    data = save(picture(48, 64), "PNG")
    decoder = watched(48 * 64 * 12)

    async def main() -> None:
        first, gone, last = (asyncio.create_task(decoder.patches(data, plan_of(data, 12), "exact")) for _ in range(3))
        await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        first.cancel()
        gone.cancel()
        await asyncio.wait([first, gone])
        for _ in range(5):
            await asyncio.sleep(0)
        assert decoder.begun == 1
        decoder.free.set()
        await last

    asyncio.run(main())
    decoder.close()
    assert (decoder.begun, decoder.most_at_once) == (2, 1)


def test_room_goes_to_the_first_who_waits_and_is_never_lost() -> None:
    """Takers and leavers in a random order: at the end all of the room is free."""
    chance = random.Random(0)
    order: list[int] = []

    async def take(room: DecodeRoom, number: int, size: int) -> None:
        taken = await room.take(size)
        order.append(number)
        await asyncio.sleep(0)
        room.give(taken)

    async def main() -> None:
        room = DecodeRoom(100)
        tasks = [asyncio.create_task(take(room, number, chance.randint(1, 130))) for number in range(200)]
        while not all(task.done() for task in tasks):
            chance.choice(tasks).cancel()
            await asyncio.sleep(0)
        assert await asyncio.wait_for(room.take(100), PATIENCE_S) == 100

    asyncio.run(main())
    assert order == sorted(order)
    assert order


def test_a_server_without_room_for_the_largest_picture_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container of 2 GB: one picture of 50 megapixels may take 1.7 GB, and half of the memory is for pictures."""
    for gigabytes, warned in ((2, 1), (8, 0)):
        monkeypatch.setattr("service.requests.decoder.usable_memory_bytes", partial(int, gigabytes * 10**9))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "service.requests.decoder"):
            Decoder.of(Settings(decode_threads=1), NAFLEX).close()
        assert len(caplog.messages) == warned
        assert not warned or "1.6 GB to decode, and there are 1.0 GB for all" in caplog.messages[0]


def test_bulk_has_as_many_turns_as_there_are_threads_and_an_interactive_image_waits_for_none() -> None:
    async def main() -> None:
        decoder = Decoder(threads=2, max_decode_pixels=10**6, geometry=NAFLEX)
        under_way = most = 0

        async def decodes() -> None:
            nonlocal under_way, most
            async with decoder.turn(bulk=True):
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1

        async with asyncio.TaskGroup() as group:
            for _ in range(9):
                group.create_task(decodes())
        assert most == 2
        async with decoder.turn(bulk=True), decoder.turn(bulk=True):
            waiting = asyncio.create_task(decodes())
            async with decoder.turn(bulk=False), decoder.turn(bulk=False), decoder.turn(bulk=False):
                await asyncio.sleep(0)
                assert not waiting.done()
        await waiting
        decoder.close()

    asyncio.run(main())
