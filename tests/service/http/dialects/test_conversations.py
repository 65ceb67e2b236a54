"""A conversation is one vector: its image, or its text."""

from typing import Any

import pytest

from tests import pictures
from tests.service.http.dialects.vllm_bodies import PHOTO, image_part, uri
from tests.service.running import Running, error_of

OTHER = pictures.save(pictures.picture(160, 40), "PNG")
PICTURE = image_part(OTHER)
SEPARATE = {"Packlight-Parts": "separate"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def vectors(server: Running, messages: Any, **headers: str) -> list[list[float]]:
    answer = server.http.post("/v1/embeddings", json={"messages": messages}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


def of_input(server: Running, *given: Any) -> list[list[float]]:
    answer = server.http.post("/v1/embeddings", json={"input": list(given)})
    return [item["embedding"] for item in answer.json()["data"]]


@pytest.mark.parametrize(
    "messages",
    [
        [user(PICTURE)],
        [user(text(""), PICTURE)],
        [user(PICTURE, text(" \n"))],
        [user(text("Represent the given image."), PICTURE)],
        [{"role": "system", "content": "Find what looks alike."}, user(PICTURE)],
        [{"role": "developer", "content": [text("Find what looks alike.")]}, user(PICTURE)],
        # as Qwen3-VL-Embedding is asked
        [
            {"role": "system", "content": [text("Represent the user's input.")]},
            user(PICTURE, text("")),
            {"role": "assistant", "content": [text("")]},
        ],
    ],
)
def test_an_image_beside_nothing_or_an_instruction_is_that_image(server: Running, messages: Any) -> None:
    assert vectors(server, messages) == of_input(server, uri(OTHER))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a red bicycle"}],
        [user(text("a red bicycle"))],
        [{"role": "system", "content": "Represent the user's input."}, user(text(""), text("a red bicycle"))],
    ],
)
def test_a_text_alone_is_that_text(texts: Running, messages: Any) -> None:
    assert vectors(texts, messages) == of_input(texts, "a red bicycle")


def test_the_text_of_nothing_and_an_instruction_alone_are_texts(texts: Running) -> None:
    assert vectors(texts, [user(text(""))]) == of_input(texts, "")
    assert vectors(texts, [user(text("Represent the given image."))]) == of_input(texts, "Represent the given image.")


@pytest.mark.parametrize(
    "messages",
    [
        [user(PICTURE, PICTURE)],
        [user(PICTURE), user(PICTURE)],
        [user(text("a red bicycle"), PICTURE)],
        [user(text("one"), text("two"))],
    ],
)
def test_what_the_model_cannot_read_together_is_refused_with_the_way_out(texts: Running, messages: Any) -> None:
    answer = texts.http.post("/v1/embeddings", json={"messages": messages})
    assert error_of(answer)[:3] == (422, "invalid", "messages")
    assert "Packlight-Parts: separate" in answer.json()["error"]["message"]


def test_separate_parts_have_a_vector_each(texts: Running) -> None:
    messages = [{"role": "system", "content": "Look."}, user(text("a red bicycle"), PICTURE), user(image_part(PHOTO))]
    found = vectors(texts, messages, **SEPARATE)
    assert found == of_input(texts, "a red bicycle", uri(OTHER), uri(PHOTO))


def test_a_fault_among_separate_parts_has_the_index_of_its_vector(server: Running) -> None:
    messages = [{"role": "system", "content": "Look."}, user(text(""), PICTURE, image_part(b"no image"))]
    answer = server.http.post("/v1/embeddings", json={"messages": messages}, headers=SEPARATE)
    assert error_of(answer)[2:] == ("messages", 1)


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([{"role": "system", "content": "Look."}], "instructions alone"),
        ([user({"type": "video_url", "video_url": {"url": "a"}})], "video"),
        ([user({"type": "input_audio", "input_audio": {"data": "a"}})], "hears nothing"),
        ([user({"type": "image_embeds", "image_embeds": "a"})], "image_embeds"),
        ([user({"type": "image_url"})], "image_url"),
        ([user({"type": "refusal", "text": "no"})], "refusal"),
        ([user(text("a") | {"image_url": "b"})], "text"),
        ([user({"type": "text", "text": 5})], "messages[0].content[0].text"),
        ([user(image_part(OTHER, max_pixels="9"))], "messages[0].content[0].image_url.max_pixels"),
        ([{"role": "user"}], "messages[0].content"),
        ([user()], "no input"),
        ([], "no input"),
    ],
)
def test_what_is_no_conversation_says_why(server: Running, messages: Any, word: str) -> None:
    answer = server.http.post("/v1/embeddings", json={"messages": messages})
    assert error_of(answer)[:3] == (422, "invalid", "messages")
    assert word in answer.json()["error"]["message"]


def test_an_unknown_wish_for_parts_is_refused(server: Running) -> None:
    answer = server.http.post("/v1/embeddings", json={"messages": [user(PICTURE)]}, headers={"Packlight-Parts": "all"})
    assert error_of(answer)[:3] == (422, "invalid", "Packlight-Parts")
