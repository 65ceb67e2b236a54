"""The parts of a job on Ray, without a cluster."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from model.sizing.plan import plan_image
from service.jobs.decoding import Recipe, digest
from service.jobs.packs import PackCount
from service.jobs.ray import messages
from service.jobs.ray.cluster import Shares
from service.jobs.ray.messages import Known, Place
from service.jobs.ray.stages import Digests, Embed, facts_of
from service.jobs.rows import Decoded, Embedded, Failed
from service.limits import Limits
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests.service.jobs.parts import GEOMETRY, RECIPE

NAME = "caf\udce9\n.png"  # as the file system gives a name that is not UTF-8
PLAN = plan_image((64, 32), geometry=GEOMETRY, budget=RECIPE.budget, strategy="naflex")


def test_a_runner_a_gpu_or_half_of_the_processors() -> None:
    assert Shares.of(gpus=3, cpus=9, runners=None, runner_cpus=1).runners == 3
    assert Shares.of(gpus=3, cpus=9, runners=2, runner_cpus=1).runners == 2
    shares = Shares.of(gpus=0, cpus=9, runners=None, runner_cpus=2)
    assert (shares.runners, shares.threads, shares.decoders) == (2, 2, 5)
    # One processor has room for both.
    shares = Shares.of(gpus=0, cpus=1, runners=None, runner_cpus=1)
    assert (shares.runners, shares.decoders) == (1, 1)
    assert shares.runner["num_cpus"] + shares.decode["num_cpus"] <= 1


@pytest.mark.parametrize(("gpus", "runners", "cpus"), [(2, 3, 1), (0, 3, 2), (0, None, 5)])
def test_more_than_the_cluster_has_is_refused(gpus: int, runners: int | None, cpus: int) -> None:
    with pytest.raises(SettingsError, match="cluster"):
        Shares.of(gpus=gpus, cpus=4, runners=runners, runner_cpus=cpus)


def test_contents_are_found_among_those_that_are_kept() -> None:
    hashes = sorted(digest(bytes([number])) for number in range(100))
    kept = Digests.of(b"".join(bytes.fromhex(each) for each in hashes[::2]))
    assert [each in kept for each in hashes] == [True, False] * 50
    assert hashes[0] not in Digests.of(b"")


def test_rows_that_are_missing_or_twice_are_seen() -> None:
    assert Place(0, 0).follows(None)
    assert Place(0, 1).follows(Place(0, 0))
    assert Place(2, 0).follows(Place(0, 7))  # the unit between them was empty
    for place in (Place(0, 0), Place(0, 2), Place(1, 1)):
        assert not place.follows(Place(0, 0))
    assert not Place(0, 1).follows(None)


def test_rows_come_through_as_they_were() -> None:
    rows = np.arange(PLAN.tokens * RECIPE.row_bytes, dtype=np.uint32).astype(np.uint8).reshape(PLAN.tokens, -1)
    given: list[Decoded | Failed | Known] = [
        Decoded(NAME, digest(b"a"), PLAN, rows, repaired=True), Failed("b", f"no {NAME}"), Known("c", digest(b"c")),
    ]  # fmt: skip
    places = [Place(3, number) for number in range(3)]
    table = messages.decoded_table(list(zip(places, given, strict=True)))
    # As Ray gives it where it has joined several blocks.
    joined = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    found = list(messages.decoded_rows(joined, row_bytes=RECIPE.row_bytes))
    assert [place for place, _ in found] == places
    picture = found[0][1]
    assert isinstance(picture, Decoded)
    assert (picture.path, picture.sha256, picture.plan, picture.repaired) == (NAME, digest(b"a"), PLAN, True)
    assert np.array_equal(picture.rows, rows)
    assert [row for _, row in found[1:]] == given[1:]

    vector = Embedded(NAME, digest(b"a"), PLAN, np.array([1.5, -0.0], np.float32), repaired=True)
    broken = Failed("b", f"no {NAME}")
    table = messages.embedded_table([(places[0], vector), (places[1], broken)], PackCount(packs=2, image_tokens=8))
    (_, row), failed = messages.embedded_rows(table)
    assert isinstance(row, Embedded)
    assert (row.path, row.plan, row.embedding.tobytes()) == (NAME, PLAN, vector.embedding.tobytes())
    assert failed == (places[1], broken)
    assert list(messages.counts(table)) == [PackCount(packs=2, image_tokens=8)]


def test_a_machine_whose_vectors_are_others_ends_the_job() -> None:
    settings = Settings(devices="cpu")
    model = facts_of(settings)
    limits = Limits.of(settings, model)
    recipe = replace(Recipe.of(model, limits), fingerprint="another")
    with pytest.raises(SettingsError, match="machines differ: one computes in .* on cpu"):
        Embed(settings, limits, recipe, threads=None)
