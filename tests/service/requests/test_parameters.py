"""Parameters: their types, their names, and where a request may give them."""

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.images.decode import DecodeMode
from service.errors import Invalid
from service.requests.parameters import EmbedParameters, merged, read_parameters, read_query

# Section 5 of the design, the positions of a language model's tokens, and how embeddings are written.
NAMES = {
    "max_pixels", "min_pixels", "max_tokens", "max_request_tokens", "strategy", "output", "positions", "normalize",
    "encoding", "decode", "timeout_ms", "partial", "truncate", "task", "embedding_type", "dimensions",
    "expect_fingerprint", "priority",
}  # fmt: skip


def test_the_parameters_are_those_of_the_design():
    assert set(EmbedParameters.model_fields) == NAMES


def test_every_parameter_may_be_left_out():
    read = read_parameters({})
    assert (read.strategy, read.output, read.normalize, read.encoding, read.decode, read.partial) == (
        None, "embedding", True, "float", "exact", False,
    )  # fmt: skip
    assert (read.max_tokens, read.max_pixels, read.max_request_tokens, read.timeout_ms) == (None,) * 4


def test_wrong_positions_are_refused_in_words_and_not_with_a_pattern():
    with pytest.raises(Invalid, match=r"^positions has no such value: .*v2pe:<delta>, delta one of 1, 1/2, 1/4"):
        read_parameters({"positions": "v2pe:3"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_tokens", "12", 12),
        ("max_pixels", "65536", 65536),
        ("normalize", "false", False),
        ("partial", "true", True),
        ("timeout_ms", "250", 250),
        ("strategy", "square", "square"),
        ("strategy", "native", "native"),
        ("strategy", "anyres", "anyres"),
        ("min_pixels", "4096", 4096),
        ("decode", "fast", "fast"),
        ("positions", "mrope", "mrope"),
        ("positions", "sequence", "sequence"),
        ("positions", "v2pe:1/16", "v2pe:1/16"),
        ("priority", "bulk", "bulk"),
    ],
)
def test_strings_are_read_as_json_values_are(name: str, text: str, value: object) -> None:
    assert getattr(read_parameters({name: text}), name) == value
    assert getattr(read_parameters({}, {name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", "256"), ("max_tokens", True), ("max_tokens", 256.0), ("max_tokens", 2.5e2),
        ("max_tokens", [256]), ("max_tokens", {"value": 256}), ("timeout_ms", "250"), ("timeout_ms", True),
        ("normalize", 1), ("normalize", 0), ("normalize", "true"), ("normalize", None), ("partial", "false"),
        ("strategy", 1), ("strategy", True), ("strategy", ["naflex"]), ("output", {}), ("max_pixels", -1.0),
    ],
)  # fmt: skip
def test_json_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises(Invalid) as caught:
        read_parameters({}, {name: value})
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("given", "read"),
    [(0, "interactive"), (-5, "interactive"), (-(10**30), "interactive"), (1, "bulk"), (10**30, "bulk"), ("3", "bulk")],
)
def test_an_integer_of_vllms_names_a_class_and_lower_is_earlier(given: int | str, read: str) -> None:
    assert read_parameters({"priority": str(given)}).priority == read
    if isinstance(given, int):
        assert read_parameters({}, {"priority": given}).priority == read


@pytest.mark.parametrize("given", ["urgent", "", "1.5", "9" * 101, "BULK"])
def test_another_word_for_a_class_is_refused(given: str) -> None:
    with pytest.raises(Invalid, match="'interactive' or 'bulk'"):
        read_parameters({"priority": given})
    with pytest.raises(Invalid):
        read_parameters({}, {"priority": True})


def test_null_means_that_a_parameter_is_left_out():
    assert read_parameters({}, {"max_tokens": None, "timeout_ms": None}) == read_parameters({})


def test_query_and_json_may_be_mixed_but_not_for_one_name():
    read = read_parameters({"max_tokens": "16", "normalize": "0"}, {"strategy": "square", "partial": True})
    assert (read.max_tokens, read.normalize, read.strategy, read.partial) == (16, False, "square", True)
    with pytest.raises(Invalid, match="more than once") as caught:
        read_parameters({"max_tokens": "16"}, {"max_tokens": 16})
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": "1.5"}, {"max_tokens": ""}, {"max_tokens": "nan"}, {"max_tokens": "true"},
        {"normalize": "maybe"}, {"normalize": ""}, {"timeout_ms": "0"}, {"timeout_ms": "1" + "0" * 400},
        {"strategy": "NAFLEX"}, {"decode": "draft"}, {"decode": ""}, {"output": ""}, {"min_pixels": "least"},
        {"max_tokens": "1" * 5000}, {"positions": "v2pe"}, {"positions": "v2pe:1/3"}, {"positions": "v2pe:2"},
        {"positions": "rope"}, {"positions": "mrope\n"},
    ],
    ids=lambda values: f"{next(iter(values))}={str(next(iter(values.values())))[:10]}",
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        read_parameters(values)
    assert caught.value.param == next(iter(values))
    assert len(caught.value.message) < 300


@given(st.text(min_size=1, max_size=20).filter(lambda name: name not in NAMES))
def test_an_unknown_name_is_refused_and_the_known_names_are_listed(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_parameters({name: "1"})
    assert caught.value.param == name
    assert all(known in caught.value.message for known in NAMES)


@pytest.mark.parametrize("default", ["exact", "fast"])
def test_the_servers_decode_mode_is_the_default(default: DecodeMode) -> None:
    assert read_parameters({}, decode=default).decode == default
    assert read_parameters({"max_tokens": "9"}, {"partial": True}, decode=default).decode == default
    assert read_parameters({"decode": "exact"}, decode=default).decode == "exact"
    assert read_parameters({}, {"decode": "fast"}, decode=default).decode == "fast"


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4), st.text(max_size=4)), max_size=70))
@example([("a", "")] * 65)
@example([("a", "é&=")] * 64)
def test_a_query_is_read_as_it_was_written_up_to_64_parameters(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs).encode()
    if len(pairs) <= 64:
        assert list(read_query(query)) == pairs
    else:
        with pytest.raises(Invalid, match="more than 64 parameters"):
            read_query(query)


PAIRS = st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=3)


@given(PAIRS, PAIRS)
def test_a_name_may_be_given_once_in_query_and_form_together(
    query: list[tuple[str, str]], fields: list[tuple[str, str]]
) -> None:
    names = [name for name, _ in query + fields]
    if len(set(names)) == len(names):
        assert merged(query, fields) == dict(query + fields)
    else:
        with pytest.raises(Invalid, match="more than once") as caught:
            merged(query, fields)
        assert names.count(str(caught.value.param)) > 1
