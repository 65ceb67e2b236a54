"""Which format an answer has: that of the `Accept` header, by RFC 9110, 12.5.1."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid
from service.http.formats import MEDIA_TYPES, Format, accepted_format, choose_format
from service.requests.parameters import EmbedParameters
from tests.service.running import Running

NPY, SAFETENSORS, JSON = "application/x-npy", "application/x-safetensors", "application/json"


@dataclass(frozen=True)
class Range:
    """An element of an `Accept` header. thousandths: its q. parameter: one that is not q."""

    kind: str
    thousandths: int
    parameter: str = ""

    def written(self, shuffled: random.Random) -> str:
        kind = "".join(shuffled.choice((letter.lower(), letter.upper())) for letter in self.kind)
        q = f"{shuffled.choice('qQ')}={self.thousandths / 1000}" if self.thousandths < 1000 else ""
        parts = [kind, *(part for part in (self.parameter, q) if part)]
        return shuffled.choice((";", "; ", " ; ")).join(parts)


OTHERS = ("text/html", "image/*", "application/xml", "application/x-npyz")
RANGES = st.lists(
    st.builds(
        Range,
        st.sampled_from([*MEDIA_TYPES.values(), "application/*", "*/*", *OTHERS]),
        st.sampled_from([0, 1, 100, 500, 999, 1000]),
        st.sampled_from(["", "", "", "v=1", 'v="a, b;q=1"', r'v="\", application/json"']),
    ),
    max_size=6,
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        (NPY, "npy"),
        (SAFETENSORS, "safetensors"),
        ("APPLICATION/X-NPY", "npy"),
        (f"{NPY};q=0.5, {SAFETENSORS};q=0.8", "safetensors"),
        (f"{NPY};q=0.5, {JSON}", "json"),
        (f"{NPY}; q=0.5, */*", "json"),
        (f"{SAFETENSORS}, {NPY}", "npy"),
        (f"{JSON}, {NPY}", "npy"),
        (f"*/*, {NPY}", "npy"),
        (f"{NPY};q=0", "json"),
        (f"{NPY};q=0, {SAFETENSORS};q=0.1", "safetensors"),
        (f"{JSON};q=0, */*", "npy"),
        (f"{JSON};q=0, {NPY};q=0.0, application/*;q=0.1", "safetensors"),
        ("text/html", "json"),
        (f"{NPY};version=2", "json"),
        (f"application/x-npyz, text/{NPY}", "json"),
        (f'text/plain; x=", {NPY}"', "json"),
        (f"{NPY};q=first", "json"),
        (f"{NPY};q=2.5", "json"),
        (f"{NPY};q=0.80000, {SAFETENSORS};q=0.7;", "npy"),
        (f",,;, {NPY} ,", "npy"),
    ],
)
def test_a_format_is_chosen_by_the_header(accept: str, chosen: Format) -> None:
    assert accepted_format(accept) == chosen


@given(RANGES, st.randoms(use_true_random=False))
def test_the_chosen_format_is_wanted_as_much_as_any(ranges: list[Range], shuffled: random.Random) -> None:
    def wanted(media_type: str) -> int:
        for kind in (media_type, "application/*", "*/*"):
            if matching := [each.thousandths for each in ranges if each.kind == kind and not each.parameter]:
                return max(matching)
        return 0

    chosen = accepted_format(", ".join(each.written(shuffled) for each in ranges))
    most = max(map(wanted, MEDIA_TYPES.values()))
    assert wanted(MEDIA_TYPES[chosen]) == most if most else chosen == "json"


@given(RANGES, st.randoms(use_true_random=False))
def test_neither_order_nor_case_nor_spaces_matter(ranges: list[Range], shuffled: random.Random) -> None:
    plain = ",".join(each.written(shuffled) for each in ranges)
    shuffled.shuffle(ranges)
    assert accepted_format(" , ".join(each.written(shuffled) for each in ranges)) == accepted_format(plain)


def test_only_the_first_hundred_elements_are_read() -> None:
    assert accepted_format("text/html," * 99 + NPY) == "npy"
    assert accepted_format("," * 100 + NPY) == "json"


def test_the_lines_of_the_header_are_one_list(server: Running, png: bytes) -> None:
    lines = [("Content-Type", "image/png"), ("Accept", "text/html"), ("Accept", f"{JSON};q=0.1, Application/X-NPY")]
    assert server.http.post("/embed", content=png, headers=lines).headers["content-type"] == NPY


@given(st.text(st.characters(codec="latin-1")) | st.text(st.sampled_from(f'{NPY}*;,q=01."\\ ')))
def test_any_header_gives_a_format(accept: str) -> None:
    assert accepted_format(accept) in MEDIA_TYPES


@pytest.mark.parametrize(
    ("accept", "parameters", "param"),
    [
        (NPY, EmbedParameters(partial=True), "partial"),
        (SAFETENSORS, EmbedParameters(partial=True), "partial"),
        (NPY, EmbedParameters(output="both"), "output"),
        (SAFETENSORS, EmbedParameters(output="segments"), "output"),
    ],
)
def test_a_format_that_cannot_hold_the_answer_is_refused(accept: str, parameters: EmbedParameters, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        choose_format(accept, parameters)
    assert caught.value.param == param
