"""What the rest of the service sees of the worker processes that decode images."""

import asyncio
import sys
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from model.images import workers
from model.images.reader import ImageReader
from model.sizing.geometry import Geometry
from service.errors import Unavailable
from service.metrics import Metrics
from service.requests.decoder import Decoder
from service.settings import SettingsError
from tests.pictures import picture, save
from tests.service.running import NAFLEX, plan_of

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
        asyncio.run(main(Decoder(threads=1, max_decode_pixels=10**6, geometry=NAFLEX, **rows)))
        for rows in ({"rows": new_rows}, {})
    )
    assert given is made[0]
    assert np.array_equal(given, own)
