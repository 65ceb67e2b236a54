"""OpenAI's own client speaks to `/v1/embeddings` and `/v1/models`.

It is loaded where it is used: every worker of a test run loads this file, and it takes half a second.
"""

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from model.running.runner import Runner
from service.http.dialects.content import is_image
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import Running, error_of, serving

if TYPE_CHECKING:
    from openai import OpenAI

PHOTO = pictures.small_photograph()
OTHER = pictures.save(pictures.picture(160, 40), "PNG")
SEPARATE = {"Packlight-Parts": "separate"}


def uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


@pytest.fixture(scope="module")
def client(module_server: Running) -> Iterator["OpenAI"]:
    import openai

    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{module_server.port}/v1",
        api_key="any",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as made:
        yield made


def embed(client: "OpenAI", given: Any, **options: Any) -> Any:
    return client.embeddings.create(model="packlight-tiny", input=given, **options)


def refusal(client: "OpenAI", given: Any, **options: Any) -> dict[str, Any]:
    from openai import UnprocessableEntityError

    with pytest.raises(UnprocessableEntityError) as caught:
        embed(client, given, **options)
    return cast(dict[str, Any], caught.value.body)


def test_the_answer_equals_that_of_embed(client: "OpenAI", server: Running) -> None:
    ours = server.embed(PHOTO).json()
    answer = embed(client, uri(PHOTO), encoding_format="float")
    assert answer.data[0].embedding == ours["data"][0]["embedding"]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (ours["usage"]["tokens"],) * 2
    assert (answer.model, answer.object, answer.data[0].object) == ("packlight-tiny", "list", "embedding")


def test_base64_the_clients_default_gives_the_same_vectors(client: "OpenAI") -> None:
    floats = embed(client, [uri(PHOTO), uri(OTHER)], encoding_format="float")
    chosen = embed(client, [uri(PHOTO), uri(OTHER)])
    for one, other in zip(floats.data, chosen.data, strict=True):
        assert (one.index, np.array(one.embedding, np.float32).tolist()) == (other.index, list(other.embedding))


def test_dimensions_cut_and_normalise_again(client: "OpenAI") -> None:
    full = np.array(embed(client, uri(PHOTO), encoding_format="float").data[0].embedding, np.float32)
    cut = np.array(embed(client, uri(PHOTO), encoding_format="float", dimensions=64).data[0].embedding, np.float32)
    np.testing.assert_allclose(cut, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)
    assert len(embed(client, uri(PHOTO), dimensions=64).data[0].embedding) == 64


def test_the_budgets_are_extra_fields(client: "OpenAI") -> None:
    assert embed(client, uri(PHOTO), extra_body={"max_tokens": 16}).usage.total_tokens <= 16
    assert embed(client, uri(PHOTO), extra_body={"max_pixels": 80 * 80}).usage.total_tokens <= 25


def test_images_in_messages_are_embedded_in_order_if_they_are_asked_for_separately(server: Running) -> None:
    parts = [{"type": "image_url", "image_url": {"url": uri(image), "detail": "low"}} for image in (PHOTO, OTHER)]
    content = {"model": "packlight-tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 16}
    answer = server.http.post("/v1/embeddings", json=content, headers=SEPARATE).json()
    expected = server.embed_form([PHOTO, OTHER], max_tokens=16).json()
    assert [item["embedding"] for item in answer["data"]] == [item["embedding"] for item in expected["data"]]


def test_text_is_refused_clearly(client: "OpenAI") -> None:
    error = refusal(client, "a photograph of a cat")
    assert "packlight-tiny takes no texts" in error["message"]
    assert (error["param"], error["index"]) == ("input", 0)


def test_text_among_images_is_refused_by_its_index(client: "OpenAI") -> None:
    assert refusal(client, [uri(PHOTO), "a cat"])["index"] == 1


def test_numbers_of_text_tokens_are_refused(client: "OpenAI") -> None:
    assert refusal(client, [1, 2, 3])["param"] == "input"


def test_a_url_is_not_fetched(client: "OpenAI") -> None:
    error = refusal(client, "https://example.com/cat.png")
    assert "not fetched" in error["message"]


def test_a_bad_image_is_refused_by_its_index(client: "OpenAI") -> None:
    error = refusal(client, [uri(PHOTO), uri(PHOTO[:5000])])
    assert (error["code"], error["index"]) == ("invalid", 1)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"dimensions": 257}, "dimensions"),
        ({"dimensions": -1}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"strategy": "square"}, "strategy"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"messages": []}, "input"),
        ({"input": None, "messages": [{"content": "a cat"}]}, "messages"),
        ({"input": None, "messages": [{"content": [{"type": "text", "text": "a cat"}]}]}, "messages"),
        ({"input": None, "messages": [{"content": [{"type": "image_url"}]}]}, "messages"),
    ],
)
def test_a_wrong_field_is_named(server: Running, content: dict[str, Any], param: str) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": uri(PHOTO)} | content)
    assert error_of(answer)[:3] == (422, "invalid", param)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("a cat", "invalid"),
        ("https://example.com/cat.png", "invalid"),
        ("data:image/png,plain", "bad_request"),
        ("data:image/png;base64,?", "bad_request"),
    ],
)
@pytest.mark.parametrize("source", ["input", "messages"])
def test_the_field_that_an_image_came_in_is_blamed(server: Running, source: str, url: str, code: str) -> None:
    urls = [uri(PHOTO), url]
    parts = [{"type": "image_url", "image_url": {"url": each}} for each in urls]
    content = {"input": urls} if source == "input" else {"messages": [{"content": parts}]}
    answer = server.http.post("/v1/embeddings", json=content, headers=SEPARATE)
    if (source, url) == ("messages", "a cat"):
        code = "bad_request"  # it was sent as an image, not as a text
    assert error_of(answer)[1:] == (code, source, 1)


class Upload(str):
    """A long text. Only its beginning may be lower-cased."""

    def lower(self) -> str:
        raise AssertionError("the whole upload is copied")


def test_no_upload_is_lower_cased_as_a_whole() -> None:
    assert is_image(Upload("DATA:image/png;base64,AAAA"))
    assert is_image(Upload("HTTPS://example.com/cat.png"))
    assert not is_image(Upload("a cat"))


def test_another_model_is_not_found(client: "OpenAI") -> None:
    from openai import NotFoundError

    with pytest.raises(NotFoundError, match="packlight-tiny"):
        client.embeddings.create(model="text-embedding-3-small", input=uri(PHOTO))


def test_too_many_images_are_refused(server: Running) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": [uri(OTHER)] * 65})
    assert error_of(answer)[:2] == (413, "too_large")


def test_the_model_is_listed_and_found_by_its_name(client: "OpenAI") -> None:
    assert [model.id for model in client.models.list()] == ["packlight-tiny"]
    assert client.models.retrieve("packlight-tiny") == client.models.list().data[0]


@pytest.mark.parametrize(
    "name", ["text-embedding-3-small", "google/siglip2-base-patch16-naflex", "packlight-tiny/", "a b"]
)
def test_a_model_of_another_name_is_not_found(client: "OpenAI", server: Running, name: str) -> None:
    from openai import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve(name)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "model")
    assert name in caught.value.message
    assert server.http.get(f"/v1/models/{name}").status_code == 404


def test_a_name_with_slashes_is_found(loaded: tuple[Runner, ModelFacts]) -> None:
    named = (loaded[0], replace(loaded[1], name="google/siglip2-base-patch16-naflex"))
    with serving(named) as server:
        for path in ("google/siglip2-base-patch16-naflex", "google%2Fsiglip2-base-patch16-naflex"):
            assert server.http.get(f"/v1/models/{path}").json()["id"] == named[1].name


@pytest.mark.parametrize(
    "field", ["model", "encoding_format", "dimensions", "user", "max_pixels", "max_tokens", "messages", "not_a_field"]
)
def test_a_null_is_left_out(server: Running, field: str) -> None:
    """LiteLLM sends `"encoding_format": null`."""
    content = {"model": "packlight-tiny", "input": uri(OTHER)}
    plain = server.http.post("/v1/embeddings", json=content)
    assert server.http.post("/v1/embeddings", json=content | {field: None}).content == plain.content


def test_a_null_in_a_message_is_left_out(server: Running) -> None:
    part = {"type": "image_url", "image_url": {"url": uri(OTHER), "detail": None}}
    content = {"input": None, "messages": [{"role": None, "content": [part], "name": None}]}
    assert server.http.post("/v1/embeddings", json=content).status_code == 200
