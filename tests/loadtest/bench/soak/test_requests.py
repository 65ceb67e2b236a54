"""The requests of a soak: their forms, their stamps, and what of an answer is compared."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from loadtest.bench.soak.clients import timetable
from loadtest.bench.soak.requests import digest, stamped, templates_of
from loadtest.traffic.corpus import Picture, Request

SIDE = 24


def picture(kind: str) -> Picture:
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(buffer, kind)
    return Picture(buffer.getvalue(), SIDE, SIDE, f"image/{kind}")


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_stamp_makes_a_picture_another_file_with_the_same_pixels(kind: str) -> None:
    plain = picture(kind)
    one, other = stamped(plain, "soak-1"), stamped(plain, "soak-2")
    assert len({plain.data, one.data, other.data}) == 3
    assert pixels(plain.data) == pixels(one.data) == pixels(other.data)


def test_a_picture_of_another_format_and_one_without_a_stamp_stay_as_they_are() -> None:
    assert stamped(picture("webp"), "soak-1") == picture("webp")
    assert stamped(picture("png"), "") == picture("png")


def test_requests_take_every_form_and_keep_all_their_pictures() -> None:
    alone, several = Request(0, (picture("png"),), {}), Request(0, (picture("png"),) * 3, {})
    texts = Request(0, (), {}, ("a cat", "a dog"))
    templates = templates_of([alone] * 6 + [several] * 6 + [texts] * 6, picture_host="http://127.0.0.1:1")
    forms = Counter(each.form for each in templates)
    assert set(forms) == {"multipart", "raw", "json", "openai", "url"}
    assert [each.wire().images for each in templates] == [1] * 6 + [3] * 6 + [2] * 6
    assert all(each.wire("soak-1").body != each.wire("soak-2").body for each in templates[:12])


def test_arrivals_are_mostly_good_and_half_of_them_new() -> None:
    templates = templates_of([Request(0, (picture("png"),), {})] * 6, picture_host="http://127.0.0.1:1")
    arrivals = timetable(templates, rate=20.0, seconds=100.0, seed=1)
    kinds = Counter(each.kind for each in arrivals)
    assert kinds["good"] > 0.9 * len(arrivals)
    assert min(kinds["broken"], kinds["leaving"]) > 10
    assert 0.4 < sum(each.is_new for each in arrivals) / len(arrivals) < 0.6
    assert 0.1 < sum(each.is_bulk for each in arrivals) / len(arrivals) < 0.3
    assert len({each.number for each in arrivals}) == len(arrivals)


def answer(**changed: object) -> bytes:
    item = {"index": 0, "embedding": "AAAA", "tokens": 4, "grid": [2, 2], **changed}
    return json.dumps({"data": [item], "usage": {"tokens": 4}}).encode()


def test_an_answer_is_its_vectors_and_not_whether_they_were_remembered() -> None:
    plain = digest(answer(), "application/json")
    assert digest(answer(cached=True), "application/json") == plain
    assert digest(answer(embedding="AAAB"), "application/json") != plain
    assert digest(answer(tokens=5), "application/json") != plain
    assert digest(b"numbers", "application/x-npy") != digest(b"others", "application/x-npy")
    with pytest.raises(ValueError, match="without vectors"):
        digest(b'{"data": []}', "application/json")
