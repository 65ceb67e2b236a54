"""Hundreds of broken files, and tens of thousands with `make fuzz`: each is refused, or gives the planned rows."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ImageError
from model.images import confined
from model.images.decode import FORMATS, DecodeMode, ImageHeader
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.examples import PART, many
from tests.model.images.test_confined import workers
from tests.mutations import broken_file, broken_files, small_files
from tests.pictures import picture, png_chunk, save

EXAMPLES = int(os.environ.get("FUZZ_CASES", 500 // PART))
LIMIT = 10_000
SMALL = Geometry.for_naflex(4, 16)

pytestmark = [
    # Warnings are errors in tests only; here they would hide what follows.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.timeout(300 + EXAMPLES // 5),
]


@pytest.fixture(scope="module")
def images() -> Iterator[ImageReader]:
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as reader:
        yield reader


def check(images: ImageReader, data: bytes) -> bool:
    """Whether a file gives rows, which must not depend on the scale of a JPEG. Fails for errors other than `ImageError`
    and for rows of another shape than planned."""
    try:
        header = images.read_header(data)
    except ImageError:
        return False
    assert header.format in FORMATS
    exact = gives_rows(images, data, header, 16, "exact")
    if header.format == "JPEG":
        assert gives_rows(images, data, header, 1, "fast") == exact
    return exact


def gives_rows(images: ImageReader, data: bytes, header: ImageHeader, cap: int, decode: DecodeMode) -> bool:
    plan = plan_image(header.size, geometry=SMALL, budget=Budget.of_tokens(cap, 4), strategy="square")
    try:
        new_plan, rows = images.decode_patches(data, plan, geometry=SMALL, decode=decode)
    except ImageError:
        return False
    assert new_plan.tokens == plan.tokens
    assert rows.shape == (plan.tokens, 4 * 4 * 3)
    assert rows.dtype == np.uint8
    return True


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def most_reserved_bytes(pid: int) -> int:
    """The most address space that a process ever took."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmPeak")]
    return int(line.split()[1]) * 1024


def test_a_file_cut_anywhere_is_refused_or_gives_rows(images):
    for name, data in small_files().items():
        assert check(images, data), name
        assert not check(images, data[: len(data) // 8]), name
        for length in range(0, len(data), PART):
            check(images, data[:length])


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(broken_files())
def test_a_broken_file_is_refused_or_gives_rows(images, data):
    check(images, data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.deferred(lambda: st.sampled_from(list(small_files().values()))), st.integers(0, 64), st.binary(max_size=300))
def test_garbage_behind_a_true_beginning_is_refused_or_gives_rows(images, data, length, garbage):
    check(images, data[:length] + garbage)


@many(200)
@given(st.binary(max_size=64), st.sampled_from([b"", b"tIME", b"tRNS", b"acTL", b"fcTL", b"iCCP", b"eXIf", b"zTXt"]))
def test_a_png_with_a_hostile_chunk_is_refused_or_gives_rows(images, content, kind):
    data = save(picture(), "PNG")
    check(images, data[:33] + (png_chunk(kind, content) if kind else content) + data[33:])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which only Linux has")
def test_broken_files_leave_no_memory_behind(images):
    random = Random(0)
    for _ in range(2 * EXAMPLES):
        check(images, broken_file(random))
    pids = [os.getpid(), *workers()]
    before = sum(map(resident_bytes, pids))
    for _ in range(4 * EXAMPLES):
        check(images, broken_file(random))
        # A worker that took too much would have ended, and been replaced.
        assert [os.getpid(), *workers()] == pids
    # Less than one leaked picture of the largest size for every hundred files.
    assert sum(map(resident_bytes, pids)) - before < 16_000_000 + 4 * EXAMPLES * LIMIT * 3 // 100
    # Before it is limited, a worker takes under 200 MB for programs and libraries.
    limit = 200_000_000 + confined._LIBRARY_BYTES + 1_000_000 + confined._BYTES_A_PIXEL * LIMIT
    assert max(map(most_reserved_bytes, workers())) < limit
