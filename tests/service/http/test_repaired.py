"""An answer says of an image that its file lacked its end marker, and says nothing of any other."""

import base64

import pytest
from safetensors import safe_open

from tests import pictures
from tests.service.running import Running, load_npy

WHOLE = pictures.save(pictures.picture(160, 90), "JPEG", quality=90)
CUT = WHOLE.removesuffix(b"\xff\xd9")


def files(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("a", image)) for image in images]


def test_an_item_says_that_its_image_was_repaired_and_has_the_vector_of_the_whole(server: Running) -> None:
    before = server.metric("images_repaired_total")
    whole, cut = server.http.post("/embed", files=files(WHOLE, CUT)).json()["data"]
    assert "repaired" not in whole
    assert cut.pop("repaired") is True
    assert cut == whole | {"index": 1}
    assert server.metric("images_repaired_total") == before + 1


def test_an_array_answer_names_the_repaired_images(server: Running, tmp_path) -> None:
    answer = server.http.post("/embed", files=files(CUT, WHOLE, CUT), headers={"Accept": "application/x-npy"})
    assert load_npy(answer.content).shape[0] == 3
    assert answer.headers["X-Image-Repaired"] == "0,2"
    answer = server.http.post("/embed", files=files(CUT, WHOLE), headers={"Accept": "application/x-safetensors"})
    (tmp_path / "a").write_bytes(answer.content)
    with safe_open(tmp_path / "a", "numpy") as tensors:
        assert tensors.metadata()["repaired"] == "0"


def test_array_answers_without_a_repaired_image_do_not_speak_of_it(server: Running, tmp_path) -> None:
    answer = server.http.post("/embed", files=files(WHOLE), headers={"Accept": "application/x-npy"})
    assert "X-Image-Repaired" not in answer.headers
    answer = server.http.post("/embed", files=files(WHOLE), headers={"Accept": "application/x-safetensors"})
    (tmp_path / "a").write_bytes(answer.content)
    with safe_open(tmp_path / "a", "numpy") as tensors:
        assert "repaired" not in tensors.metadata()


def test_openais_shape_says_it_too(server: Running) -> None:
    uris = [f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" for image in (CUT, WHOLE)]
    cut, whole = server.http.post("/v1/embeddings", json={"input": uris}).json()["data"]
    assert cut["repaired"] is True
    assert set(whole) == {"object", "index", "embedding"}


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_file_that_lacks_more_is_refused(server: Running, share: float) -> None:
    before = server.metric("images_repaired_total")
    answer = server.embed(WHOLE[: int(share * len(WHOLE))])
    assert answer.status_code == 422
    assert "JPEG" in answer.json()["error"]["message"]
    assert server.metric("images_repaired_total") == before
