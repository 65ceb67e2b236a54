import httpx
import pytest
from starlette.responses import PlainTextResponse

from service.http.paths import HEALTH_PATHS
from service.http.protocol.liveness import LIVENESS_PATHS, Liveness


def ask(path: str, fault: str | None) -> httpx.Response:
    async def main() -> httpx.Response:
        app = Liveness(PlainTextResponse("below"), lambda: fault)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    import asyncio

    return asyncio.run(main())


@pytest.mark.parametrize("path", LIVENESS_PATHS)
def test_a_process_that_must_end_says_so_where_it_is_asked_whether_it_lives(path: str) -> None:
    assert path in HEALTH_PATHS
    assert ask(path, None).text == "below"
    answer = ask(path, "the thread text_0 has ended")
    assert (answer.status_code, answer.json()) == (503, {"status": "the thread text_0 has ended"})


@pytest.mark.parametrize("path", ["/readyz", "/embed"])
def test_everything_else_is_left_to_the_application(path: str) -> None:
    assert ask(path, "the thread text_0 has ended").text == "below"
