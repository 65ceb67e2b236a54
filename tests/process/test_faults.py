"""Images on which the device fails: each fails alone."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import pictures
from tests.process.programs import faulty_engine
from tests.process.server import FAULTY, Server, coloured, running
from tests.service.running import error_of
from tests.waiting import until

GOOD = [pictures.save(pictures.picture(48, 64, seed=seed), "PNG") for seed in range(6)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # The wait lets images that are sent together share a pack. On a loaded machine two restarts
    # of an engine take longer than an answer may take by default.
    options = ("--hang-after-s", "3", "--max-wait-ms", "100", "--default-timeout-ms", "300000")
    with running(*options, program=FAULTY) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def quiet(server: Server) -> list[bytes]:
    return [server.embed(image).json()["data"][0]["embedding"] for image in GOOD]


def together(server: Server, images: list[bytes]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(images)) as pool:
        return list(pool.map(server.embed, images))


def check_contained(server: Server, quiet: list[bytes], colour: tuple[int, int, int]) -> httpx.Response:
    """Returns the answer to an image of this colour, after checking that the other images of its pack are embedded."""
    *good, bad = together(server, [*GOOD, coloured(colour)])
    assert [answer.status_code for answer in good] == [200] * len(GOOD), server.log
    assert [answer.json()["data"][0]["embedding"] for answer in good] == quiet
    assert error_of(bad)[:2] == (500, "engine_fault")
    until(server.is_ready)
    until(server.is_empty)
    return bad


def test_an_image_on_which_the_forward_raises_fails_alone(server: Server, quiet: list[bytes]) -> None:
    engines = server.engines
    bad = check_contained(server, quiet, faulty_engine.RAISES)
    assert "secret" not in bad.text
    assert "a secret of the device" in server.log
    assert server.engines == engines


def test_an_image_without_finite_numbers_fails_alone(server: Server, quiet: list[bytes]) -> None:
    engines = server.engines
    assert "finite" in check_contained(server, quiet, faulty_engine.IS_NOT_A_NUMBER).text
    assert server.engines == engines


@pytest.mark.parametrize(
    ("colour", "reason"),
    [
        (faulty_engine.KILLS, "died"),
        (faulty_engine.LOSES_THE_DEVICE, "died"),
        (faulty_engine.HANGS, "hung"),
        (faulty_engine.HANGS_WITH_THE_INTERPRETER, "hung"),
    ],
)
def test_an_image_that_ends_the_engine_ends_it_twice_and_fails_alone(
    server: Server, quiet: list[bytes], colour: tuple[int, int, int], reason: str
) -> None:
    metric = f'engine_restarts_total{{reason="{reason}"}}'
    before = server.metric(metric)
    assert "twice" in check_contained(server, quiet, colour).text
    assert server.metric(metric) == before + 2


def test_images_that_run_out_of_memory_together_are_run_apart_and_packs_become_smaller(server: Server) -> None:
    settings = ["--max-image-tokens", "1000", "--max-batch-tokens", "1800", "--max-wait-ms", "100"]
    expected = [server.embed(image, max_tokens=200).json()["data"] for image in GOOD]
    with running(*settings, program=FAULTY, TEST_LITTLE_MEMORY="1") as little, ThreadPoolExecutor(9) as pool:

        def packs_are_smaller() -> bool:
            """Clients that come too late to share a pack may try again."""
            answers = list(pool.map(lambda place: little.embed(GOOD[place % 6], max_tokens=200), range(9)))
            assert [answer.json()["data"] for answer in answers] == [expected[place % 6] for place in range(9)]
            return little.metric("max_batch_tokens") < 1800

        until(packs_are_smaller)
        assert little.metric('forward_faults_total{kind="out_of_memory"}') >= 2
        assert "packs hold at most" in little.log
        faults = little.metric('forward_faults_total{kind="out_of_memory"}')
        list(pool.map(lambda place: little.embed(GOOD[place % 6], max_tokens=200), range(6)))
        assert little.metric('forward_faults_total{kind="out_of_memory"}') == faults


@pytest.fixture(scope="module")
def deep() -> Iterator[Server]:
    """A server that has two packs under way."""
    options = ("--hang-after-s", "3", "--max-batch-tokens", "1024", "--default-timeout-ms", "300000")
    with running(*options, program=FAULTY, TEST_DEPTH="2") as running_server:
        yield running_server


@pytest.mark.slow
@pytest.mark.parametrize("colour", [faulty_engine.KILLS, faulty_engine.HANGS])
def test_with_two_packs_under_way_an_image_that_ends_the_engine_still_fails_alone(
    deep: Server, colour: tuple[int, int, int]
) -> None:
    until(deep.is_ready)
    said = len(deep.log)
    quiet = [deep.embed(image).json()["data"][0]["embedding"] for image in GOOD]
    answers = together(deep, [*GOOD, coloured(colour), *GOOD, *GOOD])
    bad = answers.pop(len(GOOD))
    assert [answer.status_code for answer in answers] == [200] * 3 * len(GOOD), deep.log
    assert [answer.json()["data"][0]["embedding"] for answer in answers] == quiet * 3
    assert error_of(bad)[:2] == (500, "engine_fault")
    assert "twice" in bad.text
    died = list(map(int, re.findall(r"(\d+) items were in its packs", deep.log[said:])))
    # A pack holds four images. At the second death nothing else is on the device.
    assert len(died) == 2
    assert died[1] == 1
    until(deep.is_empty)
