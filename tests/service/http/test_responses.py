"""Answers as they are sent: complete, in order, and in slices if they are large."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Send

from service.http.answers import Answer
from service.http.context import RequestContext
from service.http.responses import AnswerResponse
from service.requests.admission.hold import Hold
from tests.service.requests.admission.test_admission import admission

SLICE_BYTES = 64 * 1024


def client() -> tuple[list[Message], Receive, Send]:
    """A client that takes everything at once, and what it has been sent."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError("an answer needs nothing from the client")

    return messages, receive, send


def answer(pieces: list[bytes]) -> AnswerResponse:
    context = RequestContext("id", time.monotonic(), Hold(admission()), "/embed")
    return AnswerResponse(Answer(pieces, {}), "json", context)


def sent(pieces: list[bytes]) -> list[Message]:
    messages, receive, send = client()
    asyncio.run(answer(pieces)({"type": "http"}, receive, send))
    return messages


@given(st.lists(st.integers(0, 3 * SLICE_BYTES).map(lambda size: bytes([size % 251]) * size), max_size=5))
def test_an_answer_arrives_whole_in_slices_and_ends_once(pieces: list[bytes]) -> None:
    start, *bodies = sent(pieces)
    assert dict(start["headers"])[b"content-length"] == b"%d" % sum(map(len, pieces))
    assert b"".join(body["body"] for body in bodies) == b"".join(pieces)
    assert [body["more_body"] for body in bodies] == [True] * (len(bodies) - 1) + [False]
    assert all(len(body["body"]) <= SLICE_BYTES for body in bodies)


def test_other_requests_have_a_turn_between_the_slices_of_an_answer() -> None:
    turns: list[int] = []

    async def take_turns() -> None:
        while True:
            turns.append(len(messages))
            await asyncio.sleep(0)

    async def main() -> None:
        other = asyncio.create_task(take_turns())
        await response({"type": "http"}, receive, send)
        other.cancel()

    messages, receive, send = client()
    response = answer([bytes(SLICE_BYTES)] * 3)
    asyncio.run(main())
    # A message is the start, or a slice.
    assert set(turns) == {2, 3, 4}


def test_a_small_answer_is_one_message() -> None:
    assert [message["type"] for message in sent([b'{"data":[', b"1", b"]}"])] == [
        "http.response.start",
        "http.response.body",
    ]
    assert len(sent([bytes(SLICE_BYTES)])) == 2
    assert len(sent([bytes(SLICE_BYTES), b"1"])) == 4
