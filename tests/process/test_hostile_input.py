"""A real server gets every hostile file and hundreds of broken ones, answers each, and is unharmed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import httpx
import pytest

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from tests import pictures
from tests.hostile import HOSTILE
from tests.mutations import broken_file
from tests.process.server import Server, memory_bytes, open_files, running
from tests.service.running import error_of
from tests.waiting import until

CASES = int(os.environ.get("FUZZ_CASES", "400"))
STATUSES: dict[type[ImageError], tuple[int, str]] = {
    ImageTooLarge: (413, "too_large"),
    UndecodableImage: (422, "invalid"),
    UnsupportedFormat: (415, "unsupported_media"),
}
GOOD = pictures.save(pictures.picture(48, 64), "PNG")
# The allocator keeps decoded pictures for a while. A hundred of the largest would be 15 GB.
GROWTH_BYTES = 300e6


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--http-workers", "1") as running_server:
        yield running_server


@pytest.fixture(autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """Afterwards the same processes run, hold no more memory, and answer a good picture as before."""
    before = server.embed(GOOD).content
    processes = [*server.http_processes, *server.engines]
    sizes = [(memory_bytes(pid), open_files(pid)) for pid in processes]
    yield
    until(server.is_empty)
    assert [*server.http_processes, *server.engines] == processes
    for pid, (held_bytes, files) in zip(processes, sizes, strict=True):
        assert memory_bytes(pid) < held_bytes + GROWTH_BYTES
        assert open_files(pid) <= files + 8
    assert server.embed(GOOD).content == before
    assert "Traceback" not in server.log


def test_every_hostile_file_has_the_answer_that_it_deserves(server: Server) -> None:
    wrong = {}
    for name, hostile in HOSTILE.items():
        answer = server.embed(hostile.build(), max_tokens=16)
        if hostile.refused is None:
            expected: object = (200, list(hostile.size))
            given: object = (answer.status_code, answer.json().get("data", [{}])[0].get("size"))
        else:
            expected = (*STATUSES[hostile.refused], "image", 0)
            # An empty body is refused before it counts as an image.
            given = (*error_of(answer)[:2], "image", 0) if name == "nothing" else error_of(answer)
            expected = (400, "bad_request", "image", 0) if name == "nothing" else expected
        if given != expected:
            wrong[name] = (given, expected)
    assert not wrong


def test_hostile_files_do_not_harm_the_good_ones_of_their_request(server: Server) -> None:
    hostile = [made.build() for name, made in HOSTILE.items() if made.refused and name != "nothing"]
    files = [("image", ("a", data)) for data in hostile[:40] if len(data) < 200_000]
    place = len(files) // 2
    files.insert(place, ("image", ("good", GOOD)))
    answer = server.http.post("/embed", files=files, data={"partial": "true", "max_tokens": "16"})
    data = answer.json()["data"]
    assert [item["index"] for item in data if "error" not in item] == [place]


def test_what_names_a_file_or_an_address_is_not_an_image(server: Server) -> None:
    for name in ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/a.png", "../../etc/passwd"):
        assert server.embed(name.encode()).status_code == 415
        assert server.http.post("/embed", json={"images": [name]}).status_code in (400, 422)
        assert server.http.post("/v1/embeddings", json={"input": name, "model": "packlight-tiny"}).status_code in (
            400,
            422,
        )


@pytest.mark.timeout(300 + CASES // 5)
def test_broken_files_are_refused_or_embedded_and_nothing_else(server: Server) -> None:
    random = Random(CASES)

    def visit(seed: int) -> httpx.Response:
        return server.embed(broken_file(Random(seed)), max_tokens=16)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(visit, [random.randrange(2**32) for _ in range(CASES)]))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {200, 400, 413, 415, 422}
    assert statuses >= {200, 415, 422}
