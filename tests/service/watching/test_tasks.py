import asyncio
import socket

from starlette.responses import PlainTextResponse

from service.http.protocol.server import Server, config_of
from service.metrics import Metrics
from service.settings.settings import Settings
from service.watching import tasks


async def wait() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("no")


async def end() -> None: ...


def test_a_kept_task_that_fails_or_is_cancelled_is_lost_and_one_that_returns_is_not() -> None:
    async def main() -> None:
        kept = [tasks.keep(work(), f"{work.__name__}s") for work in (wait, fail, end)]
        await asyncio.sleep(0)
        kept[0].cancel()
        await asyncio.gather(*kept, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert not tasks._kept
    assert sorted(tasks.lost()) == ["the task fails has failed: ValueError: no", "the task waits was cancelled"]


def test_a_task_that_ends_with_its_server_is_not_lost() -> None:
    def listening(address: str) -> None:
        tasks.keep(wait(), "reload")
        server.should_exit = True

    with socket.create_server(("127.0.0.1", 0)) as end:
        server = Server(config_of(PlainTextResponse("here"), Settings(port=0), Metrics()), on_listening=listening)
        assert server.ran([end])
    assert tasks.lost() == []
