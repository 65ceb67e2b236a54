"""The routes that embed are run without FastAPI, which describes them."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from service.errors import ClientGone, Invalid
from service.http.context import RequestContext
from service.http.paths import EMBEDDING_PATHS
from service.http.routes.direct import Direct
from service.requests.admission.hold import Hold
from tests.service.requests.admission.test_admission import admission
from tests.service.running import Running, error_of

Sent = list[dict[str, Any]]


def call(direct: Direct, method: str = "POST", sent: Sent | None = None) -> Sent:
    sent = [] if sent is None else sent

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def main() -> None:
        scope = {"type": "http", "method": method, "path": "/embed", "headers": [], "query_string": b""}
        with Hold(admission()) as hold:
            RequestContext("id", 0.0, hold, "/embed").put(scope)
            await direct(scope, receive, send)

    asyncio.run(main())
    return sent


def direct_to(outcome: Response | Exception) -> Direct:
    router = APIRouter()

    @router.post("/embed", response_model=None)
    async def embed(request: Request) -> Response:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def others(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "others"})

    return Direct(others, [router])


def test_only_a_post_is_run_directly() -> None:
    assert [message["type"] for message in call(direct_to(Response(b"{}")))] == [
        "http.response.start",
        "http.response.body",
    ]
    assert call(direct_to(Response(b"{}")), "GET") == [{"type": "others"}]


def test_an_error_is_answered_with_its_status_and_a_defect_goes_on_to_the_layer_that_logs_it() -> None:
    assert call(direct_to(Invalid("wrong")))[0]["status"] == 422
    assert call(direct_to(ClientGone()))[0]["status"] == 499
    sent: Sent = []
    with pytest.raises(ZeroDivisionError):
        call(direct_to(ZeroDivisionError()), sent=sent)
    assert sent[0]["status"] == 500


def test_no_path_that_embeds_reaches_fastapi_and_other_paths_and_methods_do(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def note(api: FastAPI, scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["method"], scope["path"]))
        await Response(status_code=204)(scope, receive, send)

    with monkeypatch.context() as patched:
        patched.setattr(FastAPI, "__call__", note)
        for path in EMBEDDING_PATHS:
            assert server.http.post(path, json={}).status_code in (400, 415, 422)
        assert server.http.get("/embed").status_code == 204
        assert server.http.post("/plan", json={}).status_code == 204
    assert seen == [("GET", "/embed"), ("POST", "/plan")]
    assert error_of(server.http.get("/embed"))[:2] == (405, "method_not_allowed")
