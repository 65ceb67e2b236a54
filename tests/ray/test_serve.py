"""Two replicas behind Serve's proxy, beside `packlight serve`. Prints what it measures: run it with `-s`."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which

import httpx
import pytest

from tests.process.server import Server, running
from tests.ray.clients import HEADERS, KEY, Clients, Packs, photographs, say
from tests.ray.cluster import PROXY, REPLICA, START_PATIENCE_S, Cluster, cluster, free_port, private_bytes
from tests.service.running import read_answer, until

MIB = 1024**2
# One thread each, as a replica with one CPU.
LIKE_A_REPLICA = {"OMP_NUM_THREADS": "1", "PACKLIGHT_DECODE_THREADS": "1"}
SETTINGS = {"PACKLIGHT_DTYPE": "float32"}
INFLIGHT_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    own = {"PACKLIGHT_API_KEYS": KEY, "PACKLIGHT_MAX_INFLIGHT_BYTES": str(INFLIGHT_BYTES)}
    with cluster(**SETTINGS, **own) as made:
        made.run(replicas=2)
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--engine", "thread", **SETTINGS, **LIKE_A_REPLICA) as made:
        yield made


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return photographs(12)


def test_vectors_are_those_of_packlight_serve_to_the_bit(ray: Cluster, server: Server, pictures: list[bytes]) -> None:
    for body in pictures:
        answers = [client.post("/embed", content=body, headers=HEADERS) for client in (ray.http, server.http)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/embed", b"no picture", "image/*"),
        ("/embed", b"", "image/*"),
        ("/embed?max_tokens=0", b"x", "image/*"),
        ("/embed", bytes(33 * MIB), "image/*"),
        ("/v1/embeddings", b"{", "application/json"),
        ("/v1/embeddings", bytes(33 * MIB), "application/json"),
        ("/nowhere", b"x", "image/*"),
    ],
)
def test_errors_pass_through_unchanged(ray: Cluster, server: Server, path: str, body: bytes, kind: str) -> None:
    answers = [
        client.post(path, content=body, headers={"Content-Type": kind, "X-Request-ID": "mine"})
        for client in (ray.http, server.http)
    ]
    assert answers[0].status_code == answers[1].status_code >= 400
    assert answers[0].json() == answers[1].json()
    for name in ("content-type", "retry-after", "allow", "accept-encoding"):
        assert answers[0].headers.get(name) == answers[1].headers.get(name)


@pytest.mark.parametrize("given", [None, "mine", "x" * 500])
def test_an_answer_has_one_id(ray: Cluster, given: str | None) -> None:
    answer = ray.http.get("/info", headers={"X-Request-ID": given} if given else {})
    (found,) = answer.headers.get_list("x-request-id")
    assert (found == given) == (given == "mine")


def test_a_body_of_unknown_length_is_refused_where_it_passes_the_limit(ray: Cluster) -> None:
    answer = ray.http.post("/embed", content=(bytes(MIB) for _ in range(40)), headers=HEADERS)
    assert answer.status_code == 413
    assert answer.headers["X-Request-ID"]


def test_an_upload_that_trickles_is_refused(ray: Cluster) -> None:
    status, body = ask(ray, f"POST /embed HTTP/1.1\r\nX-API-Key: {KEY}\r\nContent-Length: 1000000")
    assert (status, json.loads(body)["error"]["code"]) == (408, "upload_timeout")


def test_a_request_without_a_key_is_refused_before_its_body(ray: Cluster) -> None:
    status, body = ask(ray, "POST /embed HTTP/1.1\r\nContent-Length: 1000000")
    assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
    assert httpx.get(f"{ray.url}/replicas").status_code == 401


def ask(ray: Cluster, head: str) -> tuple[int, bytes]:
    """Sends a head and no body."""
    with socket.create_connection(("127.0.0.1", ray.port), timeout=60) as connection:
        connection.sendall(f"{head}\r\nHost: a\r\nContent-Type: image/*\r\n\r\n".encode())
        answer, body = read_answer(connection)
        return answer.status, body


def test_packs_fill_as_those_of_packlight_serve(ray: Cluster, pictures: list[bytes]) -> None:
    """Both with 80 clients a replica or server, and two of them on the machine."""

    def filled(urls: list[str], servers: list[str]) -> list[float]:
        Clients(urls, pictures).run(160, seconds=1)
        packs = Packs(servers)
        outcome = Clients(urls, pictures).run(160, seconds=8)
        assert outcome.statuses.keys() == {200}
        return packs.mean_images()

    replicas = filled([ray.url], [f"http://{address}" for address in ray.targets().values()])
    with ExitStack() as stack:
        made = [stack.enter_context(running("--engine", "thread", **SETTINGS, **LIKE_A_REPLICA)) for _ in range(2)]
        urls = [f"http://127.0.0.1:{each.port}" for each in made]
        servers = filled(urls, urls)
    say(f"images a pack: replicas {replicas}, packlight serve {servers}")
    assert sum(replicas) >= 0.9 * sum(servers)


def test_three_times_the_room_is_answered_or_refused_with_a_time_to_wait(ray: Cluster, pictures: list[bytes]) -> None:
    """Two replicas have room for 256 pictures."""
    outcome = Clients([ray.url], pictures).run(768, seconds=3)
    say(f"768 clients at once: {dict(outcome.statuses)}")
    assert outcome.statuses.keys() == {200, 429}
    assert outcome.without_hint == 0
    until(lambda: ray.http.post("/embed", content=pictures[0], headers=HEADERS).status_code == 200)


def test_bodies_of_6_gb_take_a_bounded_memory(ray: Cluster) -> None:
    """200 clients with 30 MB each. Without the layer before it, the proxy and the replicas would hold them all."""
    watched = {title: ray.pids(title) for title in (PROXY, REPLICA)}
    before = {pid: private_bytes(pid) for pids in watched.values() for pid in pids}
    peaks, store_peak, done = dict(before), 0, threading.Event()

    def watch() -> None:
        nonlocal store_peak
        empty = _shared_bytes()
        while not done.wait(0.1):
            store_peak = max(store_peak, _shared_bytes() - empty)
            peaks.update({pid: max(peak, private_bytes(pid)) for pid, peak in peaks.items()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        outcome = Clients([ray.url], [bytes(30 * MIB)]).run(200, seconds=0, tries=3)
    finally:
        done.set()
        watcher.join()
    grown = {title: [(peaks[pid] - before[pid]) // MIB for pid in pids] for title, pids in watched.items()}
    say(f"200 x 30 MB: {dict(outcome.statuses)}, MiB more in {grown}, object store {store_peak // MIB}")
    # A piece is for a moment in the proxy, in the object store and in a replica, which copies it once more.
    assert sum(map(sum, grown.values())) * MIB + store_peak < 6 * INFLIGHT_BYTES
    assert outcome.statuses.keys() <= {415, 429, 408}
    assert outcome.without_hint == 0


def _shared_bytes() -> int:
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_prometheus_finds_and_scrapes_each_replica(ray: Cluster, tmp_path: Path) -> None:
    port = free_port()
    key = {"authorization": {"type": "Bearer", "credentials": KEY}}
    found = {"url": f"{ray.url}/replicas", "refresh_interval": "1s", **key}
    job = {"job_name": "packlight", "http_sd_configs": [found], **key}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    command = [
        which("prometheus") or "", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command) as prometheus:
        try:

            def query(text: str) -> dict[str, float]:
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": text})
                except httpx.TransportError:
                    return {}
                found = answer.json()["data"]["result"] if answer.status_code == 200 else []
                return {each["metric"].get("instance", ""): float(each["value"][1]) for each in found}

            until(lambda: query("up") == dict.fromkeys(ray.targets(), 1.0))
            until(lambda: query("packlight_engine_up").keys() == ray.targets().keys())
            assert sum(query("packlight_images_total").values()) > 0
        finally:
            prometheus.kill()


def test_a_killed_replica_loses_nothing_that_is_sent_again(ray: Cluster, pictures: list[bytes]) -> None:
    victim, clients = ray.pids(REPLICA)[0], Clients([ray.url], pictures)
    killer = threading.Timer(2.0, os.kill, (victim, signal.SIGKILL))
    killer.start()
    outcome = clients.run(64, seconds=5, tries=8)
    killer.join()
    say(f"a replica killed under load: {dict(outcome.statuses)}")
    assert outcome.lost == 0
    assert outcome.statuses.keys() <= {200, 429, 503}
    assert outcome.without_hint == 0
    until(lambda: victim not in ray.pids(REPLICA) and len(ray.targets()) == 2, patience_s=120)


def test_replicas_follow_the_queued_tokens_and_drain(ray: Cluster, pictures: list[bytes]) -> None:
    quick = {
        "upscale_delay_s": 1, "downscale_delay_s": 2, "look_back_period_s": 3, "metrics_interval_s": 0.5,
        "policy": {"policy_function": "deploy.ray.scaling:QueuedTokens", "policy_kwargs": {"target_queue_s": 0.2}},
    }  # fmt: skip
    ray.run(replicas=1, max_replicas=2, **quick)
    seen, done = [1], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if (count := len(ray.targets())) and count != seen[-1]:
                seen.append(count)

    watcher = threading.Thread(target=watch)
    watcher.start()
    heavy, light = Clients([ray.url], pictures), Clients([ray.url], pictures)
    try:
        _until_seen(seen, 2, lambda: heavy.run(96, seconds=1, tries=8))
        _until_seen(seen, 1, lambda: light.run(1, seconds=1))
    finally:
        done.set()
        watcher.join()
    say(f"replicas: {seen}, under load {dict(heavy.outcome.statuses)}, as one ended {dict(light.outcome.statuses)}")
    assert seen == [1, 2, 1]
    assert heavy.outcome.lost == 0
    assert light.outcome.statuses.keys() == {200}


def _until_seen(seen: list[int], count: int, load: Callable[[], object]) -> None:
    """Sends load until there are so many replicas."""
    end_s = time.monotonic() + START_PATIENCE_S
    while seen[-1] != count:
        assert time.monotonic() < end_s, f"replicas: {seen}"
        load()
