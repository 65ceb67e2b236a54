"""The bytes of answers to requests that ask for nothing new stay what they were."""

from typing import Any

import numpy as np
import orjson
import pytest

from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from service.engine.client import JobResult
from service.errors import Invalid
from service.http.answers import write_answer
from service.limits import ModelFacts
from service.requests.parameters import read_parameters
from service.requests.results import EmbeddedImage, EmbeddedText, Outcome

GEOMETRY = Geometry.for_naflex(4, 16)
FACTS = ModelFacts(
    name="m", dim=4, token_dim=4, geometry=GEOMETRY, default_max_tokens=4, parameters=1, fingerprint="f",
    fast_fingerprint="g", device="cpu", dtype="float32", attention="a",
)  # fmt: skip
PLAN = plan_image((32, 32), geometry=GEOMETRY, budget=Budget.of_tokens(4, 16), strategy="naflex")
RESULT = JobResult(np.array([[3, -4, 0, 0.5]], np.float32), np.full((4, 4), 1 / 7, np.float32), 0.0, 0.0, 0.0)
OUTCOMES: list[Outcome] = [
    EmbeddedImage(PLAN, RESULT, 0.0, True), EmbeddedText(3, False, RESULT, 0.0), Invalid("no", index=2),
]  # fmt: skip

UNIT = "[0.59702235,-0.7960298,0.0,0.099503726]"
UNIT_BASE64 = '"ddYYP5zIS78AAAAAnMjLPQ=="'
SEVENTHS = "[0.14285715,0.14285715,0.14285715,0.14285715]"
PLACE = '"grid":[2,2],"size":[32,32],"resized":[8,8],"strategy":"naflex","token_cap":4,"repaired":true}'


def json_of(parameters: dict[str, str], outcomes: list[Outcome]) -> str:
    answer = write_answer(outcomes, read_parameters(parameters), FACTS, "json")
    assert answer.headers == {"X-Fingerprint": "f"}
    return b"".join(answer.pieces).decode()


@pytest.mark.parametrize(
    ("parameters", "vector"),
    [
        ({}, UNIT),
        ({"embedding_type": "float"}, UNIT),
        ({"dimensions": "4"}, UNIT),
        ({"encoding": "base64"}, UNIT_BASE64),
        ({"normalize": "false"}, "[3.0,-4.0,0.0,0.5]"),
    ],
)
def test_json_of_an_image_a_text_and_an_error(parameters: dict[str, str], vector: str) -> None:
    assert json_of(parameters, OUTCOMES) == (
        '{"model":"m","dim":4,"fingerprint":"f","data":['
        f'{{"index":0,"kind":"image","embedding":{vector},"tokens":4,"output_tokens":4,{PLACE},'
        f'{{"index":1,"kind":"text","embedding":{vector},"tokens":3,"truncated":false}},'
        '{"index":2,"error":{"code":"invalid","message":"no","param":null,"index":2}}],'
        '"usage":{"images":1,"tokens":7,"texts":1}}'
    )


@pytest.mark.parametrize(
    ("output", "vectors"),
    [
        (
            "both",
            f'"embedding":{UNIT},"token_embeddings":{{"shape":[4,4],"data":[{",".join([SEVENTHS] * 4)}]}},',
        ),
        (
            "segments",
            '"segments":[{"grid":[2,2],"kind":"image","row":0,"column":0,"tokens":4,"offset":0,'
            f'"embedding":{UNIT}}}],',
        ),
    ],
)
def test_json_of_other_outputs(output: str, vectors: str) -> None:
    assert json_of({"output": output}, OUTCOMES[:1]) == (
        f'{{"model":"m","dim":4,"fingerprint":"f","data":[{{"index":0,"kind":"image",{vectors}"tokens":4,'
        f'"output_tokens":4,{PLACE}],"usage":{{"images":1,"tokens":4}}}}'
    )


def test_numpy_bytes() -> None:
    answer = write_answer(OUTCOMES[:2], read_parameters({}), FACTS, "npy")
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }"
    unit = np.array([0.59702235, -0.7960298, 0, 0.099503726], np.float32).tobytes()
    expected = b"\x93NUMPY\x01\x00v\x00" + head.ljust(117).encode() + b"\n" + unit + unit
    assert b"".join(answer.pieces) == expected
    assert answer.headers == {"X-Image-Tokens": "4,3", "X-Fingerprint": "f", "X-Image-Repaired": "0"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"embedding_type": "int8"}, {"dim": 4, "embedding_type": "int8"}),
        ({"dimensions": "2"}, {"dim": 2}),
        ({"dimensions": "2", "embedding_type": "ubinary"}, {"dim": 2, "embedding_type": "ubinary"}),
    ],
)
def test_an_answer_says_what_is_not_usual_about_its_vectors(
    parameters: dict[str, str], expected: dict[str, Any]
) -> None:
    answer = write_answer(OUTCOMES[:1], read_parameters(parameters), FACTS, "json")
    head = orjson.loads(b"".join(answer.pieces))
    assert {name: head[name] for name in ("dim", "embedding_type") if name in head} == expected
    assert ("Packlight-Warning" in answer.headers) == ("dimensions" in parameters)
