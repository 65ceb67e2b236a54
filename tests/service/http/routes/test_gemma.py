"""EmbeddingGemma 2 over HTTP: images, texts, and inputs of both, with the vectors of Transformers' own processing."""

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load
from transformers import AutoTokenizer
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from model.errors import DeviceOutOfMemory, UndecodableImage
from model.pack import PackedDocuments
from model.running.output import RunnerOutput
from model.running.runner import Runner
from model.sizing.plan import ImagePlan
from service.cli.texts import TextEmbedder
from service.loading import load_runner
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests import pictures
from tests.gemma import PROMPTS, save_model
from tests.service.running import PATIENCE_S, Running, error_of, serving, until
from tests.vocabularies import IMAGE_TOKENS

PHOTO = pictures.save(pictures.picture(96, 130), "PNG")
TALL = pictures.save(pictures.picture(200, 40), "PNG")
WORDS = "a red bicycle against a wall"
MOST_TEXTS = 8


@dataclass(frozen=True)
class Served:
    folder: Path
    server: Running
    model: Any

    def embed(self, **content: Any) -> dict[str, Any]:
        answer = self.server.http.post("/embed", json={"max_tokens": 630} | content)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def vectors(self, **content: Any) -> list[list[float]]:
        return [item["embedding"] for item in self.embed(**content)["data"]]

    @torch.no_grad()
    def reference(self, *parts: str | bytes) -> Any:
        """The vector of one input, as Transformers' processor writes it and its model computes it."""
        begin, token, end = IMAGE_TOKENS
        values, text = {}, ""
        if files := [part for part in parts if isinstance(part, bytes)]:
            processor = Gemma4ImageProcessorPil(max_soft_tokens=70)
            images = [Image.open(BytesIO(file)).convert("RGB") for file in files]
            values = dict(processor(images, return_tensors="pt"))
        counts = iter(values.pop("num_soft_tokens_per_image", ()))
        for part in parts:
            text += part if isinstance(part, str) else begin + token * int(next(counts)) + end
        ids = AutoTokenizer.from_pretrained(self.folder)(text, return_tensors="pt")["input_ids"]
        hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **values).last_hidden_state[0]
        vector = hidden.mean(0)
        return (vector / vector.norm()).numpy()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("gemma")
    model = save_model(folder)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded, model=str(folder), max_text_chars=1000, max_texts_per_request=MOST_TEXTS) as server:
        yield Served(folder, server, model)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{b64(data)}"


def assert_vectors(ours: Any, *theirs: Any) -> None:
    np.testing.assert_allclose(np.array(ours), np.stack(theirs), atol=2e-6)


def test_an_image_and_a_text_alone_have_the_vectors_of_transformers(served: Served) -> None:
    body = served.embed(images=[b64(PHOTO), b64(TALL)], texts=[WORDS, ""])
    ours = [item["embedding"] for item in body["data"]]
    parts: list[str | bytes] = [PHOTO, TALL, WORDS, ""]
    assert_vectors(ours, *(served.reference(part) for part in parts))
    image = body["data"][0]
    assert (image["resized"], image["tokens"], image["output_tokens"]) == ([336, 432], 567, 63)
    assert image["token_cap"] == 630
    assert body["usage"]["tokens"] == sum(item["tokens"] for item in body["data"])


def test_an_input_of_texts_and_images_is_one_vector(served: Served) -> None:
    given = [
        [{"text": WORDS + ": "}, {"image": b64(PHOTO)}, {"text": " and "}, {"image": b64(TALL)}],
        [{"image": b64(PHOTO)}, {"image": b64(TALL)}],
        [{"text": "one "}, {"text": "text"}],
        [{"image": b64(PHOTO)}],
    ]
    body = served.embed(inputs=given)
    expected = [
        served.reference(WORDS + ": ", PHOTO, " and ", TALL),
        served.reference(PHOTO, " ", TALL),
        served.reference("one text"),
        served.reference(PHOTO),
    ]
    assert_vectors([item["embedding"] for item in body["data"]], *expected)
    mixed, images, text, image = body["data"]
    assert [item["kind"] for item in body["data"]] == ["input"] * 4
    assert mixed["tokens"] == mixed["text_tokens"] + sum(each["tokens"] for each in mixed["images"])
    assert mixed["text_tokens"] > 5
    assert images["text_tokens"] == image["text_tokens"] == 0
    assert text["images"] == []
    usage = body["usage"]
    assert (usage["inputs"], usage["images"]) == (4, 5)
    assert (
        usage["tokens"] == usage["image_tokens"] + usage["text_tokens"] == sum(item["tokens"] for item in body["data"])
    )


def test_alone_and_as_an_input_a_vector_has_the_same_bits(served: Served) -> None:
    alone = served.vectors(images=[b64(PHOTO)], texts=[WORDS])
    assert served.vectors(inputs=[[{"image": b64(PHOTO)}], [{"text": WORDS}]]) == alone
    assert served.vectors(images=[b64(PHOTO)], output="both") == alone[:1]


def test_images_texts_and_inputs_share_a_pack_and_keep_their_bits(served: Served) -> None:
    contents: list[dict[str, Any]] = [
        {"images": [b64(PHOTO)]},
        {"texts": [WORDS, "two"]},
        {"inputs": [[{"text": "of "}, {"image": b64(TALL)}], [{"image": b64(TALL)}, {"text": WORDS}]]},
        {"images": [b64(TALL)], "texts": ["three"]},
    ]
    alone = [served.vectors(**content) for content in contents]
    runner, before = served.server.runner, len(served.server.runner.packs)
    runner.hold()
    try:
        with ThreadPoolExecutor(len(contents) + 1) as threads:
            first = threads.submit(served.vectors, texts=["first"])
            assert runner.entered.wait(PATIENCE_S)
            together = [threads.submit(served.vectors, **content) for content in contents]
            until(lambda: served.server.metric("queue_images") == 7)
            runner.free.set()
            assert [each.result() for each in together] == alone
            first.result()
    finally:
        runner.free.set()
    # In one call of the runner, which is one forward of each tower.
    assert [len(pack) for pack in runner.packs[before:]] == [1, 7]


def test_a_task_puts_its_prompt_before_texts_and_images_alone_have_none(served: Served) -> None:
    ours = served.vectors(
        inputs=[[{"text": WORDS}], [{"image": b64(PHOTO)}], [{"image": b64(PHOTO)}, {"text": "."}]], task="query"
    )
    prompt = PROMPTS["query"]
    assert_vectors(
        ours, served.reference(prompt + WORDS), served.reference(PHOTO), served.reference(prompt, PHOTO, ".")
    )
    assert served.vectors(texts=[WORDS], task="query") == [ours[0]]
    refused = served.server.http.post("/embed", json={"texts": [WORDS], "task": "sing"})
    assert refused.status_code == 422
    assert "the model's tasks are query, document" in refused.json()["error"]["message"]


def test_token_vectors_are_those_of_the_soft_tokens(served: Served) -> None:
    (item,) = served.embed(images=[b64(PHOTO)], output="tokens", encoding="base64")["data"]
    assert item["token_embeddings"]["shape"] == [63, 40]


def test_typed_image_tokens_are_text(served: Served) -> None:
    typed = "".join(IMAGE_TOKENS)
    body = served.embed(texts=[typed])
    assert body["data"][0]["tokens"] > 5


def test_info_says_what_the_model_takes(served: Served) -> None:
    info = served.server.http.get("/info").json()
    assert info["model"]["text"]["inputs"] is True
    assert info["model"]["text"]["tasks"] == PROMPTS
    assert info["model"]["text"]["default_task"] is None
    assert info["model"]["geometry"]["budgets"] == [630, 1260, 2520, 5040, 10080]
    assert "logit_scale" not in info["model"]["text"]


def test_plan_and_budgets_agree_with_what_is_charged(served: Served) -> None:
    workload = [{"height": 130, "width": 96, "count": 1, "task": task} for task in ("photo", "document")]
    answer = served.server.http.post("/plan", json={"workload": workload, "budget_tokens": 3000})
    assert answer.status_code == 200, answer.text
    for group, budget in zip(answer.json()["groups"], (630, 630), strict=True):
        (item,) = served.embed(images=[b64(PHOTO)], **group["take"]["parameters"])["data"]
        assert (item["token_cap"], item["tokens"]) == (budget, group["take"]["tokens"])
    for cap, budget in ((1300, 1260), (2000, 1260), (4096, 2520)):
        (item,) = served.embed(images=[b64(PHOTO)], max_tokens=cap)["data"]
        assert item["token_cap"] == budget


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"max_tokens": 600, "images": [b64(PHOTO)]}, "takes an image at 630 tokens or more; the cap is 600"),
        ({"strategy": "native", "images": [b64(PHOTO)]}, "it takes naflex"),
        ({"inputs": [[{"audio": "aGk="}]]}, "served without its audio tower"),
        ({"inputs": [[{"text": "a", "image": "b"}]]}, "an input is a list of parts"),
        ({"inputs": [[]]}, "an input is a list of parts"),
        ({"inputs": ["a"]}, "texts that have a vector each are sent as texts"),
        ({"inputs": "a"}, "texts that have a vector each are sent as texts"),
        ({"inputs": [[{"text": "a"}]], "texts": ["b"]}, "both inputs and texts"),
        ({"inputs": [[{"text": "a"}]], "output": "tokens"}, "an input has one vector"),
        (
            {"inputs": [[{"image": b64(PHOTO)}] * 8], "max_tokens": 2520},
            "at most 4096 tokens (max_image_tokens), and the input has 8 images",
        ),
        ({"inputs": [[{"text": "many words " * 60}]], "truncate": "error"}, "too many tokens; this model takes 96"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(served: Served, content: dict[str, Any], message: str) -> None:
    answer = served.server.http.post("/embed", json=content)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]["message"]


def test_caps_are_lowered_together_until_an_input_fits(served: Served) -> None:
    inputs = [[{"text": WORDS}, *[{"image": b64(PHOTO)}] * 3], [{"image": b64(PHOTO)}]]
    body = served.embed(inputs=inputs, max_tokens=2520)
    assert [image["token_cap"] for image in body["data"][0]["images"]] == [1260] * 3
    assert [image["token_cap"] for image in body["data"][1]["images"]] == [2520]
    lowered = served.embed(inputs=inputs, max_tokens=1260)
    assert lowered["data"][0]["embedding"] == body["data"][0]["embedding"]


def test_a_bad_image_of_an_input_stops_the_work_on_the_others(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped = [], []

    async def patches(data: bytes, plan: ImagePlan, decode: str) -> Any:
        if data == TALL:
            await asyncio.sleep(0)  # the others have begun
            raise UndecodableImage("broken")
        begun.append(data)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(data)
            raise

    monkeypatch.setattr(served.server.decoder, "patches", patches)
    content = {"inputs": [[*[{"image": b64(PHOTO)}] * 3, {"image": b64(TALL)}]], "max_tokens": 630}
    assert error_of(served.server.http.post("/embed", json=content))[1:] == ("invalid", "inputs", 0)
    assert begun == stopped == [PHOTO] * 3


def test_a_bad_image_fails_its_input_alone_if_partial(served: Served) -> None:
    inputs = [
        [{"text": "a"}],
        [{"text": "b"}, {"image": b64(PHOTO)}, {"image": b64(b"no image")}],
        [{"image": b64(PHOTO)}],
    ]
    answer = served.server.http.post("/embed", json={"inputs": inputs, "max_tokens": 630})
    assert answer.status_code == 415
    assert error_of(answer)[2:] == ("inputs", 1)
    body = served.embed(inputs=inputs, partial=True)
    assert ["error" in item for item in body["data"]] == [False, True, False]
    assert (body["data"][1]["error"]["param"], body["data"][1]["error"]["index"]) == ("inputs", 1)
    inputs[1][2] = {"image": "*"}  # no base64
    answer = served.server.http.post("/embed", json={"inputs": inputs, "max_tokens": 630})
    assert error_of(answer) == (400, "bad_request", "inputs", 1)
    items = served.embed(inputs=inputs, partial=True)["data"]
    assert [item.get("error", {}).get("code") for item in items] == [None, "bad_request", None]
    assert items[1]["error"]["index"] == 1


def test_classification_is_refused_since_the_model_has_no_logits(served: Served) -> None:
    answer = served.server.http.post("/classify", json={"image": b64(PHOTO), "labels": ["a", "b"]})
    assert answer.status_code == 422
    assert "it has no logits" in answer.json()["error"]["message"]


def test_dialects_fuse_the_parts_of_an_input(served: Served) -> None:
    parts = [{"type": "text", "text": WORDS}, {"type": "image_url", "image_url": {"url": uri(PHOTO)}}]
    expected = served.vectors(inputs=[[{"text": WORDS}, {"image": b64(PHOTO)}]])
    http = served.server.http
    cohere = http.post("/v2/embed", json={"inputs": [{"content": parts}, {"content": parts[:1]}], "max_tokens": 630})
    assert cohere.status_code == 200, cohere.text
    assert cohere.json()["embeddings"]["float"][:1] == expected
    billed = cohere.json()["meta"]["billed_units"]
    assert (billed["images"], billed["image_tokens"]) == (1, 567)
    chat = http.post("/v1/embeddings", json={"messages": [{"role": "user", "content": parts}], "max_tokens": 630})
    assert chat.status_code == 200, chat.text
    assert [item["embedding"] for item in chat.json()["data"]] == expected
    voyage = http.post(
        "/v1/multimodalembeddings",
        json={
            "inputs": [{"content": [parts[0], {"type": "image_base64", "image_base64": uri(PHOTO)}]}],
            "max_tokens": 630,
        },
    )
    assert voyage.status_code == 200, voyage.text
    assert [item["embedding"] for item in voyage.json()["data"]] == expected
    assert voyage.json()["usage"]["image_pixels"] == 96 * 130


def test_metrics_count_both_kinds_of_tokens(served: Served) -> None:
    def tokens() -> dict[str, float]:
        lines = served.server.http.get("/metrics").text.splitlines()
        found = {}
        for kind in ("image", "text"):
            (line,) = [line for line in lines if line.startswith(f'packlight_tokens_total{{kind="{kind}"}}')]
            found[kind] = float(line.rpartition(" ")[2])
        return found

    before = tokens()
    usage = served.embed(inputs=[[{"text": WORDS}, {"image": b64(PHOTO)}]])["usage"]
    after = tokens()
    assert after["image"] - before["image"] == usage["image_tokens"]
    assert after["text"] - before["text"] == usage["text_tokens"]


def test_the_texts_of_inputs_have_a_stage_of_their_own(served: Served) -> None:
    def tokenized() -> float:
        return served.server.counted("stage_seconds_count", stage="tokenize")

    def stages(*inputs: list[dict[str, str]]) -> list[str]:
        content = {"inputs": inputs, "max_tokens": 630}
        timing = served.server.http.post("/embed", json=content).headers["Server-Timing"]
        return [stage.partition(";")[0] for stage in timing.split(", ")]

    before = tokenized()
    both, text = [{"text": WORDS}, {"image": b64(PHOTO)}], [{"text": WORDS}]
    assert stages(both) == ["receive", "tokenize", "decode", "queue", "pack", "forward", "respond"]
    assert tokenized() == before + 1
    # Those of the input that took longest, which may be either.
    assert [stage for stage in stages(both, text) if stage != "decode"] == [
        "receive", "tokenize", "queue", "pack", "forward", "respond",
    ]  # fmt: skip
    assert tokenized() == before + 2
    served.embed(inputs=[[{"image": b64(PHOTO)}]])
    assert tokenized() == before + 2


def test_the_tokens_of_images_are_counted_as_they_were_charged(served: Served) -> None:
    before = served.server.counted("image_tokens_sum")
    body = served.embed(inputs=[[{"text": WORDS}, *[{"image": b64(PHOTO)}] * 3]], max_tokens=2520)
    assert served.server.counted("image_tokens_sum") - before == body["usage"]["image_tokens"]


def test_texts_count_as_such_in_a_dialect_beside_an_input_of_several_parts(served: Served) -> None:
    text, image = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": uri(PHOTO)}}
    inputs = [*[{"content": [text]}] * (MOST_TEXTS + 1), {"content": [text, image]}]
    answer = served.server.http.post("/v2/embed", json={"inputs": inputs, "max_tokens": 630})
    assert answer.status_code == 413
    assert "max_texts_per_request" in answer.text


def test_npy_has_a_row_for_each_input(served: Served) -> None:
    content = {"inputs": [[{"text": WORDS}], [{"image": b64(PHOTO)}]], "max_tokens": 630}
    answer = served.server.http.post(
        "/embed",
        content=json.dumps(content),
        headers={"Accept": "application/x-npy", "Content-Type": "application/json"},
    )
    assert np.load(BytesIO(answer.content)).shape == (2, 40)
    assert answer.headers["X-Image-Tokens"].endswith(",567")


def test_safetensors_has_the_grids_of_the_images_of_inputs(served: Served) -> None:
    content = {
        "inputs": [
            [{"text": WORDS}, {"image": b64(PHOTO)}, {"image": b64(TALL)}],
            [{"text": "a"}],
            [{"image": b64(TALL)}],
        ],
        "max_tokens": 630,
    }
    answer = served.server.http.post("/embed", json=content, headers={"Accept": "application/x-safetensors"})
    tensors = load(answer.content)
    grids = [image["grid"] for item in served.embed(**content)["data"] for image in item["images"]]
    assert tensors["grids"].tolist() == grids
    assert tensors["cu_images"].tolist() == [0, 2, 2, 3]


def test_a_text_that_is_too_long_is_a_fault_of_inputs(served: Served) -> None:
    inputs = [[{"text": "a"}], [{"text": "many words " * 60}, {"image": b64(PHOTO)}]]
    refused = served.server.http.post("/embed", json={"inputs": inputs, "truncate": "error"}).json()["error"]
    assert (refused["param"], refused["index"]) == ("inputs", 1)


def test_prompts_go_by_the_names_of_other_services(served: Served) -> None:
    def same(expected: str, path: str, **content: Any) -> bool:
        answer = served.server.http.post(path, json=content)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found = body["data"][0]["embedding"] if "data" in body else body["embeddings"]["float"][0]
        return bool(found == served.vectors(texts=["a"], task=expected)[0])

    part = {"type": "text", "text": "a"}
    assert same("query", "/v2/embed", texts=["a"], input_type="search_query")
    assert same("document", "/v2/embed", inputs=[{"content": [part]}], input_type="search_document")
    assert same("query", "/v1/multimodalembeddings", inputs=[{"content": [part]}], input_type="query")
    assert same("document", "/v1/embeddings", input="a", input_type="passage")
    assert same("query", "/v1/embeddings", input="a", task="query")
    assert same("document", "/v1/embeddings", input=[{"text": "a"}], task="retrieval.passage")
    assert not same("query", "/v2/embed", texts=["a"], input_type="classification")
    refused = served.server.http.post("/v1/embeddings", json={"input": ["a"], "task": "sing"})
    assert "the model's tasks are query, document" in refused.json()["detail"]


@pytest.mark.parametrize(("input_type", "status"), [("query", 422), ("search_document", 422), ("classification", 200)])
def test_a_prompt_before_ids_is_refused_rather_than_left_out(served: Served, input_type: str, status: int) -> None:
    answer = served.server.http.post("/v1/embeddings", json={"input": ["a", [5, 6]], "input_type": input_type})
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["error"]["param"] == "input_type"


def test_cohere_bounds_images_beside_texts_and_never_cuts_the_start_of_an_input(served: Served) -> None:
    text, image = {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": uri(PHOTO)}}

    def ask(*contents: list[Any], **content: Any) -> httpx.Response:
        inputs = [{"content": each} for each in contents]
        return served.server.http.post("/v2/embed", json={"inputs": inputs, "max_pixels": 630 * 256} | content)

    refused = ask([text, image], truncate="START")
    assert (refused.status_code, "truncate=START is not offered" in refused.json()["message"]) == (422, True)
    assert "is not cut to fewer" in ask([text], max_tokens=90).json()["message"]
    # Under 96 tokens, the context of a text, and under any budget of an image, which is the one that is bounded.
    assert "takes an image at 630 tokens or more" in ask([text, image], [text], max_tokens=90).json()["message"]


def test_a_text_is_split_into_the_ids_that_it_is_charged_default_prompt_included(served: Served) -> None:
    facts = served.server.facts
    assert facts.text
    assert facts.text.documents
    prompted = replace(facts.text, documents=replace(facts.text.documents, default_prompt="query"))
    runner = served.server.runner.runner
    assert isinstance(runner, Runner)
    with serving((runner, replace(facts, text=prompted)), model=str(served.folder)) as server:
        charged = server.embed_json(texts=[WORDS]).json()["usage"]["tokens"]
        said = server.http.post("/tokenize", json={"prompt": WORDS}).json()
        assert said["count"] == charged == len(said["tokens"])


def test_the_command_line_puts_the_prompt_of_its_task_before_texts(served: Served) -> None:
    server = served.server
    # The engine's thread rests meanwhile.
    until(server.is_empty)
    runner = server.runner.runner
    assert isinstance(runner, Runner)
    of = partial(TextEmbedder.of, server.settings, runner, server.facts)
    (text,) = of(task="query").embed([WORDS])
    assert np.array_equal(text.embedding, np.array(served.vectors(texts=[WORDS], task="query")[0], np.float32))
    with pytest.raises(SettingsError, match="--task: task is 'sing'; the model's tasks are query, document"):
        of(task="sing")


def test_memory_that_one_input_lacks_is_said_of_that_input(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [[{"text": WORDS}, {"image": b64(PHOTO)}], [{"text": "a"}], [{"image": b64(TALL)}]]
    expected = served.embed(inputs=inputs)["data"]
    runner = served.server.runner.runner
    run = runner.run_documents

    def short_of_memory(documents: PackedDocuments) -> RunnerOutput:
        if int(documents.cu_seqlens[-1]) > 65:
            raise DeviceOutOfMemory("no memory")
        return run(documents)

    monkeypatch.setattr(runner, "run_documents", short_of_memory)
    body = served.embed(inputs=inputs, partial=True)
    said = f"the device has no memory for an input of {expected[0]['tokens']} tokens"
    assert said in body["data"][0]["error"]["message"]
    assert body["data"][1:] == expected[1:]
