"""`/tokenize` and `/detokenize`: what the text tower sees."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.service.http.dialects.vllm_bodies import PHOTO, image_part
from tests.service.running import Running, error_of, serving
from tests.text_models import load_whole

LONG = "one word after another " * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Iterator[Running]:
    with serving(load_whole(folder, "clip"), max_text_chars=2000) as running:
        yield running


def ask(server: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = server.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_the_ids_are_transformers_and_as_many_as_are_charged(clip: Running, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answer = ask(clip, "/tokenize", prompt="a red bicycle", return_token_strs=True)
    assert answer["tokens"] == tokenizer("a red bicycle")["input_ids"]
    assert answer["token_strs"] == tokenizer.convert_ids_to_tokens(answer["tokens"])
    assert (answer["max_model_len"], answer["truncated"]) == (77, False)
    charged = ask(clip, "/v1/embeddings", input="a red bicycle")["usage"]["total_tokens"]
    assert answer["count"] == len(answer["tokens"]) == charged


def test_a_long_text_is_cut_as_the_tower_sees_it(clip: Running) -> None:
    answer = ask(clip, "/tokenize", prompt=LONG)
    assert (answer["count"], answer["truncated"], answer["token_strs"]) == (77, True, None)


def test_a_conversation_of_a_text_is_read_as_its_text(clip: Running) -> None:
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": "a red bicycle"}]
    body = {"model": "random-clip", "messages": messages, "add_generation_prompt": True, "add_special_tokens": False}
    assert ask(clip, "/tokenize", **body) == ask(clip, "/tokenize", prompt="a red bicycle")


def test_ids_become_their_text_again(clip: Running) -> None:
    ids = ask(clip, "/tokenize", prompt="a red bicycle")["tokens"]
    assert "a red bicycle" in ask(clip, "/detokenize", tokens=ids)["prompt"]
    assert ask(clip, "/detokenize", tokens=[])["prompt"] == ""


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": False}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "chat_template": "b"}, "chat_template"),
        ("/tokenize", {"prompt": "a", "surprise": 1}, "surprise"),
        ("/tokenize", {"prompt": "a" * 2001}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"messages": [{"content": [image_part(PHOTO)]}]}, "messages"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [2**40]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_a_wrong_field_is_named(clip: Running, path: str, body: dict[str, Any], param: str) -> None:
    assert error_of(clip.http.post(path, json=body))[:3] == (422, "invalid", param)


@pytest.mark.parametrize(("path", "query"), [("/tokenize", "prompt=a"), ("/detokenize", "tokens=1")])
def test_a_field_in_the_query_is_told_where_it_belongs(clip: Running, path: str, query: str) -> None:
    answer = clip.http.post(f"{path}?{query}", json={})
    assert error_of(answer)[:3] == (422, "invalid", query.partition("=")[0])
    assert "is in the query" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_another_model_is_not_found_and_one_without_text_says_so(clip: Running, server: Running, path: str) -> None:
    body = {"prompt": "a"} if path == "/tokenize" else {"tokens": [1]}
    assert error_of(clip.http.post(path, json=body | {"model": "another"}))[:2] == (404, "not_found")
    answer = server.http.post(path, json=body)
    assert error_of(answer)[:2] == (422, "invalid")
    assert "takes no texts" in answer.json()["error"]["message"]
