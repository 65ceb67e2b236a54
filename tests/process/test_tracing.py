"""Traces of a server of several processes: HTTP processes send them, and know of each other's images in a pack."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests import pictures
from tests.process.server import REAL, Server
from tests.service.tracing.collector import Collector, attributes
from tests.waiting import until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
REQUESTS = 40


def embed(server: Server) -> httpx.Response:
    # Each from a connection of its own: one process may have all that are kept.
    return server.http.post("/embed", content=PNG, headers={"Content-Type": "image/png", "Connection": "close"})


def test_packs_link_to_the_images_of_all_http_processes() -> None:
    with Collector() as collector:
        server = Server(
            REAL, "--http-workers", "2", "--tracing-endpoint", collector.endpoint, "--tracing-sample-ratio", "1",
            "--max-wait-ms", "50", OTEL_BSP_SCHEDULE_DELAY="20",
        )  # fmt: skip
        try:
            server.start()
            answers: list[httpx.Response] = []

            def both_have_answered() -> bool:
                """Which process takes a connection depends on what else the machine does."""
                with ThreadPoolExecutor(8) as pool:
                    answers.extend(pool.map(lambda _: embed(server), range(REQUESTS)))
                until(lambda: len(collector.named("POST /embed")) == len(answers))
                return len({resource["service.instance.id"] for resource in collector.resources}) == 2

            until(both_have_answered)
            assert {answer.status_code for answer in answers} == {200}
            packs = {answer.headers["packlight-packs"] for answer in answers}
            until(lambda: len(collector.named("run pack")) == len(packs))
        finally:
            server.close()
    images = {(span.trace_id, span.span_id) for span in collector.named("image")}
    linked = Counter((link.trace_id, link.span_id) for pack in collector.named("run pack") for link in pack.links)
    assert len(images) == len(answers)
    assert linked == Counter(images)
    ids = {(pack.trace_id, pack.span_id) for pack in collector.named("run pack")}
    assert {(link.trace_id, link.span_id) for span in collector.named("forward") for link in span.links} == ids
    assert {attributes(pack)["packlight.pack_id"] for pack in collector.named("run pack")} == packs


def test_a_server_ends_soon_although_its_collector_is_away() -> None:
    server = Server(REAL, "--tracing-endpoint", "http://127.0.0.1:1", "--tracing-sample-ratio", "1")
    try:
        server.start()
        assert embed(server).status_code == 200
        server.process.terminate()
        assert server.process.wait(30) == 0
    finally:
        server.close()
    assert "Traceback" not in server.log
