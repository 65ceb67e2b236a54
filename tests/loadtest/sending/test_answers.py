"""Usage, stage times and errors are read from answers of every shape."""

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtest.sending.answers import Usage, read_error, read_server_timing, read_usage


def test_packlights_usage_is_cut_out_of_the_answer():
    body = json.dumps({"data": [{"index": 0, "embedding": [0.1]}], "usage": {"images": 1, "tokens": 252}}).encode()
    assert read_usage(body, None) == Usage(1, 252)


def test_texts_count_beside_images():
    body = json.dumps({"data": [], "usage": {"images": 1, "tokens": 252, "texts": 2}}).encode()
    assert read_usage(body, None) == Usage(3, 252)


def test_openais_usage_counts_its_items():
    data = [{"object": "embedding", "index": n, "embedding": []} for n in range(3)]
    body = json.dumps({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode()
    assert read_usage(body, None) == Usage(3, 9)


def test_the_usage_of_a_binary_answer_is_in_its_header():
    assert read_usage(b"\x93NUMPY", "252,196") == Usage(2, 448)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_an_error(body):
    read_usage(b'{"usage"' + body, None)
    read_error(body)


def test_server_timing_gives_milliseconds_by_name():
    header = 'decode;dur=1.5, queue;desc="a, b";dur=2, forward; dur=3e1 ,cache, decode;dur=1'
    assert read_server_timing(header) == {"decode": 2.5, "queue": 2.0, "forward": 30.0}


@given(st.text(max_size=80))
def test_any_server_timing_is_read_without_an_error(header):
    assert all(isinstance(value, float) for value in read_server_timing(header).values())


def test_the_message_of_an_error_is_found_in_every_shape():
    assert read_error(b'{"error": {"code": "x", "message": "too big"}}') == "too big"
    assert read_error(b'{"detail": "Not Found"}') == "Not Found"
    assert read_error(b"<h1>Bad\n Gateway</h1>") == "<h1>Bad Gateway</h1>"
