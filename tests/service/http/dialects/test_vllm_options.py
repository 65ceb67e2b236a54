"""What options mean for families of models that are not served in the other tests."""

from dataclasses import replace

import pytest

from model.running.runner import Runner
from model.sizing.geometry import Geometry
from service.errors import Invalid
from service.http.dialects.dialect import Served
from service.http.dialects.vllm_options import RequestOptions, check_inputs, parameters_of
from service.limits import Limits, ModelFacts, TextFacts
from service.requests.request import TextInput
from service.settings.settings import Settings

CLIP = TextFacts(77, "clip", 100.0, None, "softmax", "f", "folder", "clip", 49_408)


@pytest.fixture
def served(loaded: tuple[Runner, ModelFacts]) -> Served:
    settings = Settings(devices="cpu")
    return Served(loaded[1], Limits.of(settings, loaded[1]), settings.decode)


def options(**given: object) -> RequestOptions:
    return RequestOptions.model_validate(given, strict=True)


def test_a_qwen_tower_takes_areas_as_edges_and_soft_tokens_as_four(served: Served) -> None:
    geometry = Geometry.for_merging(14, 2, min_pixels=3136, max_pixels=1_003_520)
    qwen = replace(served, model=replace(served.model, geometry=geometry))
    size = {"shortest_edge": 4000, "longest_edge": 60_000}
    found = parameters_of(options(mm_processor_kwargs={"size": size, "max_soft_tokens": 16}), qwen)
    assert (found.min_pixels, found.max_pixels, found.max_tokens) == (4000, 60_000, 64)


def test_a_bound_is_given_once(served: Served) -> None:
    with pytest.raises(Invalid, match="max_pixels and mm_processor_kwargs.max_pixels"):
        parameters_of(options(max_pixels=9000, mm_processor_kwargs={"max_pixels": 9000}), served)


def test_padding_changes_nothing_for_clip(served: Served) -> None:
    """It reads a text at its end token."""
    clip = replace(served, model=replace(served.model, text=CLIP))
    for padding in ("max_length", "do_not_pad"):
        check_inputs(options(padding=padding), [TextInput("a cat", "input")], clip)
    siglip = replace(served, model=replace(served.model, text=replace(CLIP, family="siglip2")))
    with pytest.raises(Invalid, match="padding"):
        check_inputs(options(padding="do_not_pad"), [TextInput("a cat", "input")], siglip)
