"""`POST /plan`: a workload and a budget in, settings out. Decodes nothing and asks no device."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from model.errors import BudgetError
from service.engine.client import EngineClient
from service.engine.cost.fit import CostFit
from service.errors import TooLarge, Unavailable, from_model_error
from service.http import schemas
from service.http.bodies.json_object import read_json
from service.http.bodies.receive import BodyLimits
from service.http.context import RequestContext
from service.planning.answer import WorkloadPlan, write_plan
from service.planning.choice import ServedModel
from service.planning.planner import Planner
from service.planning.workload import MAX_GROUPS, PlanRequest, read_plan_request
from service.requests.parameters import check_query

# Room for the most groups, each written at length.
_MAX_BODY_BYTES = 1024 * MAX_GROUPS


def plan_router(client: EngineClient, model: ServedModel, *, upload_timeout_s: float) -> APIRouter:
    router = APIRouter()
    # A group takes as many values of JSON as an image of a request may have.
    body_limits = BodyLimits(
        _MAX_BODY_BYTES, 3 * _MAX_BODY_BYTES, max_images=MAX_GROUPS, max_texts=0, timeout_s=upload_timeout_s
    )
    # Plans are arithmetic in Python: several at once would be no faster, and would slow the event loop.
    one_at_a_time = asyncio.Semaphore(1)

    @router.post(
        "/plan",
        response_model=None,
        responses={200: {"model": WorkloadPlan}, **schemas.error_responses()},
        summary="Plan a workload under a budget",
    )
    async def plan(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        check_query(request.scope["query_string"], PlanRequest.model_fields)
        try:
            content = await read_json(request, context.hold, body_limits)
        except TooLarge:
            raise TooLarge(f"the body is over {_MAX_BODY_BYTES} bytes, the most that a workload takes") from None
        # Thousands of wrong fields take milliseconds to refuse.
        asked = await asyncio.to_thread(read_plan_request, content)
        cost = client.cost
        if asked.budget_ms is not None and cost is None:
            raise Unavailable("too few packs have run to know what they cost; give budget_tokens")
        async with one_at_a_time:
            answer = await asyncio.to_thread(_written, model, asked, cost)
        return Response(answer, media_type="application/json")

    return router


def _written(model: ServedModel, asked: PlanRequest, cost: CostFit | None) -> bytes:
    try:
        return write_plan(Planner(model, asked, cost).plan())
    except BudgetError as error:
        raise from_model_error(error) from None
