"""Every message arrives as it was sent, and nothing else arrives."""

import sys
from dataclasses import asdict, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sizing.geometry import FixedInput, Geometry
from service.engine.cost.fit import CostFit
from service.limits import ModelFacts
from service.processes import messages
from service.processes.exchange import messages as exchanged
from service.processes.messages import MalformedMessage, Reader, encode

FACTS = ModelFacts(
    name="m", dim=8, token_dim=8, geometry=Geometry.for_naflex(16, 256),
    default_max_tokens=256, parameters=1, fingerprint="f", fast_fingerprint="g", device="cpu",
    dtype="float32", attention="segmentwise",
)  # fmt: skip
FIXED = replace(Geometry.for_fixed(14, FixedInput(336, "squash", 336, "bicubic")), pinpoints=((336, 672),))
QWEN = Geometry.for_merging(14, 2, min_pixels=3136, max_pixels=1_003_520)
ALL_FACTS = [
    FACTS, replace(FACTS, geometry=FIXED), replace(FACTS, geometry=QWEN), replace(FACTS, card="CARD.md", token_dim=9),
]  # fmt: skip

text = st.text(max_size=20)
number = st.integers(0, sys.maxsize)
seconds = st.floats(allow_nan=False)
facts = st.sampled_from(ALL_FACTS)
settings = st.dictionaries(text, st.none() | st.booleans() | number | seconds | text | st.lists(text), max_size=5)
grids = st.lists(st.tuples(number, number), max_size=4).map(tuple)
status = st.builds(messages.EngineStatus, st.none() | text, st.booleans())
serve = st.builds(messages.ServeModel, number, facts, st.lists(status, max_size=3))
cost = st.builds(CostFit, seconds, seconds, seconds, st.none() | seconds, number)
state = st.builds(exchanged.EngineState, st.booleans(), st.none() | seconds, number, st.none() | cost)
stop = st.builds(messages.Stop)
shapes = st.lists(st.lists(number, max_size=3).map(tuple), max_size=3)
answer = (
    st.builds(exchanged.Embedded, number, shapes, seconds, seconds, seconds, text)
    | st.builds(exchanged.Failed, number, text, text)
    | st.builds(exchanged.Dropped, number)
)

DIRECTIONS: dict[str, tuple[Reader[Any], st.SearchStrategy[Any]]] = {
    "to_engine": (
        messages.to_engine,
        stop | st.builds(messages.StartEngine, text, number, text, settings, st.none() | text),
    ),
    "from_engine": (
        messages.from_engine,
        st.builds(messages.Ready, facts, text)
        | st.builds(messages.StartFailed, text)
        | st.builds(messages.Alive, seconds)
        | st.builds(messages.PackBegins, number, st.lists(text), st.none() | seconds)
        | st.builds(messages.PackEnds, number, st.booleans()),
    ),
    "to_http": (
        messages.to_http,
        stop
        | serve
        | st.builds(messages.StartHttp, text, number, text, settings, serve, number)
        | st.builds(messages.EngineUp, number, number, text)
        | st.builds(messages.EngineDown, number, number, st.lists(text), st.booleans())
        | st.builds(messages.Reloaded, st.sampled_from(["done", "failed"])),
    ),
    "from_http": (messages.from_http, st.builds(messages.Listening, text) | st.builds(messages.Moved, number)),
    "request": (
        exchanged.request,
        st.builds(exchanged.Hello, text, text)
        | st.builds(
            exchanged.Embed,
            number,
            grids,
            number,
            st.none() | number,
            number,
            st.none() | seconds,
            st.booleans(),
            st.booleans(),
        )
        | st.builds(exchanged.Cancel, number),
    ),
    "reply": (
        exchanged.reply,
        st.builds(exchanged.News, state) | st.builds(exchanged.Answers, state, st.lists(answer, max_size=3)),
    ),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.data())
def test_a_message_arrives_as_it_was_sent(direction: str, data: st.DataObject) -> None:
    read, sent = DIRECTIONS[direction]
    message = data.draw(sent)
    assert read(encode(message)) == message


@pytest.mark.parametrize("direction", DIRECTIONS)
@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_message_are_malformed(direction: str, data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        DIRECTIONS[direction][0](data)


@given(data=st.data())
def test_a_message_that_was_cut_is_malformed(data: st.DataObject) -> None:
    read, sent = DIRECTIONS[data.draw(st.sampled_from(list(DIRECTIONS)))]
    whole = encode(data.draw(sent))
    with pytest.raises(MalformedMessage):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    ("read", "content", "error"),
    [
        (messages.from_engine, {"type": "PackBegins", "number": 1, "names": [1]}, "malformed PackBegins: .*names"),
        (messages.from_engine, {"type": "Alive"}, "malformed Alive: .*at_s"),
        (messages.from_engine, {"type": "Alive", "at_s": 1.0, "begins": []}, "malformed Alive: .*begins"),
        (messages.from_engine, {"type": "Embed", "number": 1}, "malformed Embed: .*Embed"),
        (messages.from_engine, {"alive": 1.0}, "malformed message: .*type"),
        (exchanged.request, {"type": "Embed", "number": "1"}, "malformed Embed: .*number"),
    ],
)  # fmt: skip
def test_a_malformed_message_is_an_error_that_names_its_type(
    read: Reader[Any], content: dict[str, Any], error: str
) -> None:
    with pytest.raises(MalformedMessage, match=error):
        read(msgspec.msgpack.encode(content))


@pytest.mark.parametrize(
    "change",
    [{"strategies": ["naflex", "best"]}, {"tile_side": 100}, {"fixed": {"side": 1}}, {"resample": "sharp"}],
)
def test_what_no_model_is_like_does_not_arrive(change: dict[str, Any]) -> None:
    values = asdict(FACTS)
    content = {"type": "Ready", "facts": values | {"geometry": values["geometry"] | change}, "address": "here"}
    with pytest.raises(MalformedMessage, match="malformed Ready: .*geometry"):
        messages.from_engine(msgspec.msgpack.encode(content))
