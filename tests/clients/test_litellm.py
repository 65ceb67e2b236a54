"""What LiteLLM sends, byte for byte as recorded from 1.110.2 and, of nulls, as public reports of earlier versions show.

LiteLLM itself is 380 MB. Its calls go through OpenAI's client, with its own handlers for some providers.
"""

import json
from typing import Any

import numpy as np
import pytest

from tests.clients.asking import PHOTO, data_uri
from tests.service.running import Running

OPENAI = {
    "Accept": "application/json", "Content-Type": "application/json", "Authorization": "Bearer k",
    "User-Agent": "OpenAI/Python 3.57.0", "X-Stainless-Lang": "python", "X-Stainless-Async": "false",
    "X-Stainless-Raw-Response": "true", "X-Stainless-Retry-Count": "0", "X-Stainless-Read-Timeout": "600",
}  # fmt: skip
OWN = {
    "Accept": "*/*",
    "Content-Type": "application/json",
    "Authorization": "Bearer k",
    "User-Agent": "litellm/1.110.2",
}
IMAGE = data_uri(PHOTO)
SHAPES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "openai": (OPENAI, {"model": "packlight-tiny", "input": [IMAGE]}),
    "openai with options": (
        OPENAI, {"model": "packlight-tiny", "input": [IMAGE], "user": "u", "encoding_format": "float"}
    ),
    "openai with a budget": (OPENAI, {"model": "packlight-tiny", "input": [IMAGE], "max_tokens": 256}),
    "nulls": (
        OPENAI,
        {"model": "packlight-tiny", "input": [IMAGE], "encoding_format": None, "dimensions": None, "user": None},
    ),
    "hosted_vllm": (OWN, {"model": "packlight-tiny", "input": [IMAGE]}),
    "infinity": (OWN, {"input": [IMAGE], "model": "packlight-tiny"}),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "content"), SHAPES.values(), ids=SHAPES)
def test_a_request_of_litellm_is_answered(server: Running, headers: dict[str, str], content: dict[str, Any]) -> None:
    answer = server.http.post("/v1/embeddings", content=json.dumps(content), headers=headers)
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["data"]
    assert item["object"] == "embedding"
    (expected,) = server.embed(PHOTO).json()["data"]
    assert np.array_equal(item["embedding"], expected["embedding"])
