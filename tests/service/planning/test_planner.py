"""The planner: it counts what `/embed` charges, gives reasons for its choices, and keeps to budgets."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import BudgetError
from model.images.decode import ImageHeader
from model.sizing.geometry import Strategy
from service.engine.client import EngineClient
from service.engine.cost.fit import CostFit
from service.errors import Invalid
from service.limits import Limits
from service.metrics import Metrics
from service.planning.answer import GroupPlan, WorkloadPlan, read_plan, write_plan
from service.planning.choice import ServedModel
from service.planning.geometries import GEOMETRIES
from service.planning.planner import Planner
from service.planning.quality import QUALITY, Task
from service.planning.workload import Group, PlanRequest, read_plan_request
from service.requests.admission.admission import Admission
from service.requests.admission.hold import Hold
from service.requests.decoder import Decoder
from service.requests.embedder import Embedder
from service.requests.parameters import EmbedParameters
from tests.examples import many

TASKS = get_args(Task)
COST = CostFit(a=2e-5, b=1e-8, c=2e-3, error=0.05, packs=100)
ENOUGH = 10**15
PLANNED = [(name, strategy) for name, named in GEOMETRIES.items() for strategy in named.geometry.strategies]


def served(name: str, *, max_image_tokens: int = 1024) -> ServedModel:
    named = GEOMETRIES[name]
    limits = Limits(min(named.default_max_tokens, 1024), max_image_tokens, 8192, 65_536)
    return ServedModel(name, named.geometry, limits, max_decode_pixels=50_000_000)


def group(height: int, width: int, task: Task = "photo", count: int = 1) -> Group:
    return Group(height=height, width=width, count=count, task=task)


def planned(model: ServedModel, groups: Sequence[Group], *, cost: CostFit | None = None, **asked: Any) -> WorkloadPlan:
    """With no budget given, one that is enough."""
    budget = {} if "budget_ms" in asked else {"budget_tokens": ENOUGH}
    return Planner(model, PlanRequest(workload=list(groups), **(budget | asked)), cost).plan()


def plan_one(
    name: str, one: Group, *, max_image_tokens: int = 1024, cost: CostFit | None = None, **asked: Any
) -> GroupPlan:
    (answer,) = planned(served(name, max_image_tokens=max_image_tokens), [one], cost=cost, **asked).groups
    return answer


def option(plan: GroupPlan, geometry: str, strategy: str) -> Any:
    (found,) = [one for one in plan.options if (one.geometry, one.strategy) == (geometry, strategy)]
    return found


# What `/embed` charges

SIDES = st.integers(1, 6000)
GROUPS = st.builds(group, SIDES, SIDES, st.sampled_from(TASKS), st.integers(1, 1000))


class Charged(Exception):
    """Carries the tokens that `/embed` charges, and stops it before it decodes."""


class Header:
    """A decoder that knows the size of its one image."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def plain_header(self, data: bytes) -> ImageHeader:
        return ImageHeader("PNG", self.size)


class Client:
    def __init__(self, model: ServedModel) -> None:
        self.model = SimpleNamespace(geometry=model.geometry, text=None)


def charged(model: ServedModel, size: tuple[int, int], parameters: dict[str, Any]) -> int:
    """The tokens that `/embed` charges: runs the embedder up to its approval."""
    embedder = Embedder(
        client=cast(EngineClient, Client(model)), decoder=cast(Decoder, Header(size)), limits=model.limits,
        metrics=METRICS,
    )  # fmt: skip

    def approve(tokens: int) -> None:
        raise Charged(tokens)

    # Not validated: some strategies are planned for models that are not served.
    asked = EmbedParameters.model_construct(**parameters)
    hold = Hold(cast(Admission, None))
    hold.images = [b""]
    with pytest.raises(Charged) as stopped:
        asyncio.run(embedder.embed(hold, asked, deadline_s=time.monotonic() + 60, approve=approve))
    return int(stopped.value.args[0])


METRICS = Metrics()


@many(150)
@given(st.sampled_from(PLANNED), GROUPS, st.integers(1, 2_000_000))
def test_the_tokens_planned_are_the_tokens_that_embed_charges(
    case: tuple[str, Strategy], one: Group, budget_tokens: int
):
    name, strategy = case
    model = served(name, max_image_tokens=4096)
    plan = planned(model, [one], strategy=strategy, budget_tokens=budget_tokens)
    take = plan.groups[0].take
    if take is None:
        assert plan.groups[0].why
        return
    assert take.parameters["strategy"] == strategy
    assert charged(model, one.size, take.parameters) == take.tokens
    assert plan.totals.tokens == one.count * take.tokens
    (own,) = [o for o in plan.groups[0].options if o.loaded and o.strategy == strategy]
    assert own.tokens == take.tokens


@pytest.mark.parametrize("budget_tokens", range(1, 40))
def test_a_cap_that_a_merged_native_size_misses_is_lowered_until_it_fits(budget_tokens: int):
    """This one takes 8 tokens under caps of 8 and 9, and 12 under 10 and 11, which is too many."""
    model, one = served("qwen14x2", max_image_tokens=4096), group(43, 169, "photo")
    plan = planned(model, [one], strategy="native", budget_tokens=budget_tokens)
    take = plan.groups[0].take
    assert take is not None
    assert charged(model, one.size, take.parameters) == take.tokens
    assert plan.budget.fits == (take.tokens <= budget_tokens)


# Choices


def test_square_anyres_and_native_are_compared_and_one_is_chosen():
    plan = plan_one("naflex16", group(1792, 896, "document"))
    square, anyres = option(plan, "fixed336/14", "square"), option(plan, "fixed336/14", "anyres")
    native = option(plan, "qwen14x2", "native")
    assert [square.tokens, anyres.tokens, native.tokens] == [576, 1728, 8192]
    assert [square.segments, anyres.segments, native.segments] == [1, 3, 1]
    assert (anyres.resized, native.scale, square.shown) == ((672, 336), 1.0, 0.5)
    assert "50% of the picture cropped" in square.remark
    assert "a thumbnail and 2 tiles" in anyres.remark
    assert "8.0 × the longest length published" in native.remark

    assert plan.take is not None
    assert (plan.take.parameters, plan.take.tokens) == ({"strategy": "naflex", "max_tokens": 1024}, 968)
    assert plan.why.startswith("naflex keeps the aspect ratio in one segment")
    assert "1,024 tokens" in plan.why


@pytest.mark.parametrize(
    ("name", "strategy", "tokens", "reason"),
    [
        ("fixed336/14", "anyres", 1728, "tiles, since the model's own square shows too little"),
        ("qwen14x2", "native", 968, "native keeps the aspect ratio in one segment"),
        ("naflex16", "naflex", 968, "naflex keeps the aspect ratio in one segment"),
    ],
)
def test_each_family_has_its_own_choice(name: str, strategy: str, tokens: int, reason: str):
    plan = plan_one(name, group(1792, 896, "document"), max_image_tokens=4096)
    assert plan.take is not None
    assert (plan.take.strategy, plan.take.tokens) == (strategy, tokens)
    assert reason in plan.why


def test_a_fixed_model_takes_its_square_if_tiles_do_not_fit_or_show_no_more():
    for one, limit in ((group(1792, 896, "document"), 1024), (group(640, 600, "photo"), 4096), (group(32, 48), 4096)):
        plan = plan_one("fixed336/14", one, max_image_tokens=limit)
        assert plan.take is not None
        assert plan.take.parameters == {"strategy": "square"}


def test_a_model_that_is_not_loaded_names_its_checkpoint_and_has_no_milliseconds():
    plan = plan_one("naflex16", group(480, 640), cost=COST)
    for one in plan.options:
        assert (one.ms is None, one.needs is None) == (not one.loaded or one.tokens is None, one.loaded)
    assert option(plan, "qwen14x2", "native").needs == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_milliseconds_come_from_the_fit():
    plan = planned(served("naflex16"), [group(512, 512, count=320)], cost=COST)
    take = plan.groups[0].take
    assert take is not None
    assert take.tokens == 256
    assert plan.totals.packs == 10
    assert plan.totals.ms is not None
    assert plan.totals.ms == pytest.approx(1000 * (320 * 256 * COST.a + 320 * 256**2 * COST.b + 10 * COST.c))
    assert take.ms == pytest.approx(plan.totals.ms / 320, abs=0.001)


# The caps that tasks start with


@pytest.mark.parametrize("task", TASKS)
def test_a_task_starts_with_its_published_cap(task: Task):
    plan = plan_one("naflex16", group(2000, 1500, task))
    assert plan.start_tokens == QUALITY[task].start_tokens
    assert QUALITY[task].why in plan.why


def test_a_small_picture_is_not_enlarged_further_than_useful():
    plan = plan_one("naflex16", group(160, 160, "document"))
    assert plan.take is not None
    assert (plan.take.token_cap, plan.take.grid) == (400, (20, 20))
    assert "show all of so small a picture" in plan.why
    assert plan_one("naflex16", group(20, 20)).start_tokens == 128


def test_a_group_may_give_the_cap_that_it_starts_with():
    # More than a small picture would be given, and less than a document's.
    for size, cap, grid in (((20, 20), 300, (17, 17)), ((2000, 1500), 100, (11, 9))):
        one = Group(height=size[0], width=size[1], task="document", max_tokens=cap)
        plan = plan_one("naflex16", one)
        assert plan.take is not None
        assert (plan.start_tokens, plan.take.token_cap, plan.take.grid) == (cap, cap, grid)
        assert "max_tokens" in plan.why


def test_the_servers_limit_is_named_if_it_is_lower():
    plan = plan_one("naflex16", group(2000, 1500, "document"), max_image_tokens=700)
    assert plan.start_tokens == 700
    assert "max_image_tokens" in plan.why


def test_an_image_that_embed_would_not_decode_is_not_taken():
    plan = planned(served("naflex16"), [group(9000, 9000), group(48, 64)])
    assert plan.groups[0].take is None
    assert "max_decode_pixels" in plan.groups[0].why
    assert plan.totals.images == 1


# Budgets


@many(80)
@given(st.sampled_from(list(GEOMETRIES)), st.lists(GROUPS, min_size=1, max_size=5), st.integers(1, 3_000_000))
def test_a_plan_says_whether_it_fits_and_lowers_caps_only_if_it_must(
    name: str, groups: list[Group], budget_tokens: int
):
    model = served(name)
    natural = planned(model, groups)
    plan = planned(model, groups, budget_tokens=budget_tokens)
    assert plan.totals.tokens == sum(one.take.tokens * one.group.count for one in plan.groups if one.take)
    assert plan.budget.fits == (plan.totals.tokens <= budget_tokens)
    if natural.totals.tokens <= budget_tokens or not plan.budget.fits:
        assert [one.take for one in plan.groups] == [one.take for one in natural.groups]
        assert not any(one.lowered for one in plan.groups)
    else:
        assert any(one.lowered for one in plan.groups)


def test_the_largest_caps_are_lowered_first_and_every_image_counts():
    groups = [group(2000, 2000, "document", 10), group(512, 512, "photo", 100)]
    natural = 10 * 1024 + 100 * 256
    plan = planned(served("naflex16"), groups, budget_tokens=natural - 10 * 448)
    assert [(one.take and one.take.tokens, one.lowered) for one in plan.groups] == [(576, True), (256, False)]
    plan = planned(served("naflex16"), groups, budget_tokens=natural // 2)
    assert [one.lowered for one in plan.groups] == [True, True]
    assert plan.groups[0].take == plan.groups[1].take, "all caps are lowered to one level"


def test_the_published_table_says_what_a_lowered_cap_costs():
    documents = group(2000, 2000, "document", 10)
    plan = plan_one("naflex16", documents, budget_tokens=5760)
    assert plan.crosses == "HierText text-to-image recall at 1,024 → 576 tokens: B/16 9.1 → 8.7, So400m 11.7 → 11.3"
    plan = plan_one("naflex16", documents, budget_tokens=2560)
    assert plan.crosses is not None
    assert plan.crosses.startswith("below the knee of 576 tokens: ")
    assert "9.1 → 7.4" in plan.crosses
    plan = plan_one("naflex16", group(512, 512, count=10), budget_tokens=300)
    assert plan.crosses is not None
    assert "78.5 → 71.2" in plan.crosses
    assert "shorter than any row" in plan.crosses
    assert plan_one("naflex16", group(512, 512, "screenshot"), budget_tokens=950).crosses is not None
    assert plan_one("naflex16", documents).crosses is None


def test_a_budget_under_one_token_an_image_is_reported():
    plan = planned(served("naflex16"), [group(512, 512, count=1000)], budget_tokens=999)
    assert not plan.budget.fits
    assert "not even 1 token an image fits: 1,000 images take at least 1,000 tokens" in plan.budget.message
    plan = planned(served("siglip512/16"), [group(512, 512, count=10)], budget_tokens=9999)
    assert not plan.budget.fits
    assert "cannot be lowered that far: 10 images take at least 10,240 tokens" in plan.budget.message


def test_a_budget_in_milliseconds_is_kept_by_the_fit():
    groups = [group(2000, 1500, "document", 100), group(600, 800, "photo", 500)]
    natural = planned(served("naflex16"), groups, cost=COST, budget_ms=1e9)
    assert natural.totals.ms is not None
    plan = planned(served("naflex16"), groups, cost=COST, budget_ms=natural.totals.ms / 2)
    assert plan.totals.ms is not None
    assert 0.4 * natural.totals.ms < plan.totals.ms <= 0.5 * natural.totals.ms
    with pytest.raises(BudgetError) as error:
        planned(served("naflex16"), groups, budget_ms=1.0)
    assert error.value.param == "budget_ms"


def test_totals_are_compared_with_padding_and_squares():
    groups = [group(1080, 1920, "photo", 3), group(2000, 2000, "document", 2)]
    totals = planned(served("naflex16"), groups).totals
    assert totals.tokens == 3 * 252 + 2 * 1024
    assert (totals.pad_to_longest, totals.pad_to_cap) == (5 * 1024, 3 * 256 + 2 * 1024)
    assert totals.fixed_square == 5 * 1024
    fixed = planned(served("fixed336/14"), groups).totals
    assert (fixed.fixed_square, fixed.pad_to_cap) == (5 * 576, None)


def test_a_strategy_that_the_model_lacks_is_refused():
    with pytest.raises(BudgetError) as error:
        planned(served("fixed336/14"), [group(1, 1)], strategy="naflex")
    assert error.value.param == "strategy"


# Requests and answers


def request(**changes: Any) -> dict[str, Any]:
    one = {"height": 480, "width": 640, "count": 2, "task": "photo"}
    return {"workload": [one] * 4, "budget_tokens": 1000} | changes


def with_group(**changes: Any) -> dict[str, Any]:
    content = request()
    content["workload"] = [*content["workload"][:3], content["workload"][3] | changes]
    return content


BAD: list[tuple[dict[str, Any], str]] = [
    (with_group(height=0), "workload.3.height"),
    (with_group(width=-1), "workload.3.width"),
    (with_group(height=2.5), "workload.3.height"),
    (with_group(height="480"), "workload.3.height"),
    (with_group(height=True), "workload.3.height"),
    (with_group(count=0), "workload.3.count"),
    (with_group(count=10**12), "workload.3.count"),
    (with_group(task="painting"), "workload.3.task"),
    (with_group(tasks="photo"), "workload.3.tasks"),
    ({"workload": [{"height": 1, "width": 1}], "budget_tokens": 1}, "workload.0.task"),
    (request(workload=[]), "workload"),
    (request(workload={}), "workload"),
    (request(workload=[1]), "workload.0"),
    (request(workload=request()["workload"] * 65), "workload"),
    (request(budget_ms=5), "budget_tokens"),
    (request(budget_tokens=None), "budget_tokens"),
    (request(budget_tokens=0), "budget_tokens"),
    (request(budget_tokens=1.5), "budget_tokens"),
    (request(budget_tokens=None, budget_ms=0), "budget_ms"),
    (request(budget_tokens=None, budget_ms=float("inf")), "budget_ms"),
    (request(strategy="best"), "strategy"),
    (request(budget=5), "budget"),
    ({"budget_tokens": 5}, "workload"),
]


@pytest.mark.parametrize(("content", "param"), BAD)
def test_a_wrong_field_is_named_by_its_path(content: dict[str, Any], param: str):
    with pytest.raises(Invalid) as error:
        read_plan_request(content)
    assert error.value.param == param
    assert error.value.message


def test_the_most_groups_are_read():
    assert len(read_plan_request(request(workload=request()["workload"] * 64)).workload) == 256


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(GEOMETRIES)), st.lists(GROUPS, min_size=1, max_size=3))
def test_a_plan_survives_its_json(name: str, groups: list[Group]):
    plan: WorkloadPlan = planned(served(name), groups, cost=COST, budget_tokens=1000)
    assert read_plan(write_plan(plan)) == plan


def test_planning_does_not_load_torch():
    program = (
        "import sys, json; from service.__main__ import main;"
        "sys.stdin = open(sys.argv[1]); status = main(['plan', '--workload', '-', '--budget-tokens', '9999']);"
        "sys.exit(status or 'torch' in sys.modules)"
    )
    workload = Path(__file__).parents[3] / "docs" / "workload.json"
    assert json.loads(workload.read_text())
    assert subprocess.run([sys.executable, "-c", program, workload], check=False).returncode == 0
