"""Several processes share the port, feed one engine or several, and count as one."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests import pictures
from tests.process.server import SMALL_PACKS, Server, is_there, running
from tests.waiting import PATIENCE_S, until

IMAGE = pictures.save(pictures.picture(48, 64), "PNG")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--http-workers", "3", "--devices", "cpu,cpu", "--max-wait-ms", "50", *SMALL_PACKS) as running_server:
        yield running_server


def embed(server: Server, tokens: int, *, bulk: bool = False) -> httpx.Response:
    """Over a new connection, which any of the processes may accept."""
    # Nothing is encrypted, and to read the authorities that it would trust takes longer than all else here.
    return httpx.post(
        f"http://127.0.0.1:{server.port}/embed", params={"max_tokens": tokens}, content=IMAGE,
        headers={"Content-Type": "image/*", "X-Priority": "bulk" if bulk else "interactive"}, timeout=PATIENCE_S,
        trust_env=False, verify=False,
    )  # fmt: skip


def answered_by(log: str) -> dict[str, str]:
    """The name of the process that answered each request for embeddings, by the request's id."""
    found = re.findall(r"\[(http-\d)\] packlight\.request request request_id=(\w+) .*route=/embed", log)
    return {request: process for process, request in found}


def test_there_are_as_many_processes_as_were_asked_for(server: Server) -> None:
    assert len(server.http_processes) == 3
    assert len(server.engines) == 2


def test_all_share_the_work_and_each_gives_the_metrics_of_all(server: Server) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda place: embed(server, 20 + place % 50), range(300)))
    assert {answer.status_code for answer in answers} == {200}
    until(lambda: server.metric('requests_total{dialect="packlight",route="/embed",status="200"}') == 300)
    charged = sum(answer.json()["usage"]["tokens"] for answer in answers)
    until(lambda: server.metric("charged_tokens_total") == charged)
    for _ in range(6):
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False).text
        assert f"packlight_charged_tokens_total {float(charged)}" in text
        assert f'packlight_tokens_total{{kind="image"}} {float(charged)}' in text
        assert re.search(r"^process_resident_memory_bytes \S+", text, re.MULTILINE)
    assert len(set(answered_by(server.log).values())) > 1
    until(server.is_empty)


def test_each_tells_of_the_packs_of_all(server: Server) -> None:
    """Whoever listens learns of packs that ran for other processes, on any device."""
    sizes = set(range(80, 90))
    streams = [
        httpx.stream("GET", f"http://127.0.0.1:{server.port}/stats", timeout=PATIENCE_S, trust_env=False)
        for _ in range(6)
    ]
    with ExitStack() as stack:
        lines = [stack.enter_context(stream).iter_lines() for stream in streams]
        seen: list[dict[str, int]] = [{} for _ in lines]
        answers = [embed(server, size) for size in sizes]
        # An answer names its pack as every process does.
        named = {answer.headers["Packlight-Packs"] for answer in answers}
        wanted = {answer.json()["data"][0]["tokens"] for answer in answers}
        for own, known in zip(lines, seen, strict=True):
            while not (wanted <= set(known.values()) and named <= {name.split()[0] for name in known}):
                for pack in json.loads(next(own))["packs"]:
                    known |= {f"{pack['id']} {place}": sum(image) for place, image in enumerate(pack["images"])}
    common = set.intersection(*(set(known) for known in seen))
    assert wanted <= {seen[0][name] for name in common}


def test_classes_are_told_apart_whichever_process_took_the_request(server: Server) -> None:
    def tokens() -> list[float]:
        return [server.metric(f'priority_tokens_total{{priority="{name}"}}') for name in ("interactive", "bulk")]

    before = tokens()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda place: embed(server, 16, bulk=place % 3 > 0), range(48)))
    assert [answer.headers.get("X-Priority") for answer in answers] == [None, "bulk", "bulk"] * 16
    charged = sum(answer.json()["usage"]["tokens"] for answer in answers)
    until(
        lambda: (
            [after - earlier for after, earlier in zip(tokens(), before, strict=True)] == [charged / 3, charged / 1.5]
        )
    )


def test_images_of_different_processes_share_packs(server: Server) -> None:
    def one_pack_holds_images_of_two() -> bool:
        """Whether clients are that fast depends on what else the machine does, so they may try again."""
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda place: embed(server, 16), range(24)))
        assert {answer.status_code for answer in answers} == {200}
        ids = {answer.headers["X-Request-ID"] for answer in answers}
        until(lambda: ids <= set(answered_by(server.log)))
        processes = answered_by(server.log)
        packs: dict[str, set[str]] = {}
        for answer in answers:
            packs.setdefault(answer.headers["Packlight-Packs"], set()).add(processes[answer.headers["X-Request-ID"]])
        return any(len(sent_by) > 1 for sent_by in packs.values())

    until(one_pack_holds_images_of_two)


def test_both_engines_work(server: Server) -> None:
    spent = {pid: cpu_s(pid) for pid in server.engines}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda place: embed(server, 200), range(64)))
    assert all(cpu_s(pid) > before for pid, before in spent.items())


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_while_one_engine_is_away_the_other_does_the_work(server: Server) -> None:
    os.kill(server.engines[0], signal.SIGKILL)
    until(lambda: len(server.engines) == 1 or server.metric("engine_up") == 0)
    assert server.is_ready()
    assert embed(server, 30).status_code == 200
    until(lambda: server.metric("engine_up") == 1)


def test_an_http_process_that_dies_is_replaced_and_counts_on(server: Server) -> None:
    until(lambda: len(server.http_processes) == 3)
    answered = server.metric('requests_total{dialect="packlight",route="/embed",status="200"}')
    killed = server.http_processes[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: not is_there(killed) and len(server.http_processes) == 3)

    def all_answer() -> bool:
        return {embed(server, 16).status_code for _ in range(9)} == {200}

    until(all_answer)
    until(lambda: server.metric('requests_total{dialect="packlight",route="/embed",status="200"}') >= answered + 9)
    # Each engine sees the rows of the processes that live, and of no other.
    until(lambda: [slabs_of(engine) for engine in server.engines] == [3, 3])


def slabs_of(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:packlight-rows")
