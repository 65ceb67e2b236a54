"""A real server with many clients at once, and with clients that leave, are late, find no room or do not read."""

import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from random import Random

import httpx
import numpy as np
import pytest
from PIL import Image

from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner
from service.engine.forward import PackRunner
from service.http.protocol.connection import BoundedProtocol
from service.http.protocol.departure import Departure
from service.limits import ModelFacts
from service.requests.results import normalized
from tests import pictures
from tests.service.running import (
    PATIENCE_S,
    NoTexts,
    Running,
    alone,
    error_of,
    plan_of,
    raw_request,
    read_answer,
    send_until_cut,
    serving,
    until,
)

Loaded = tuple[Runner, ModelFacts]

PNG = pictures.save(pictures.picture(48, 64), "PNG")
CLIENTS = 64
# Sizes at which photographs are sent, and the budgets they are sent with.
SCALES = (1.0, 0.7, 0.4, 0.15)
BUDGETS: tuple[dict[str, int], ...] = (
    {"max_tokens": 16},
    {"max_tokens": 100},
    {"max_pixels": 128 * 128},
    {"max_pixels": 40_000, "max_tokens": 200},
    {},
)


@dataclass(frozen=True)
class Case:
    """One client's photograph and budget, and the token cap that comes of it."""

    image: bytes
    budget: dict[str, int]
    token_cap: int


@dataclass(frozen=True)
class Crowd:
    """What 64 clients got at once, and what the server counted meanwhile."""

    server: Running
    cases: list[Case]
    answers: list[httpx.Response]


def photograph(name: str, scale: float) -> bytes:
    if scale == 1:
        return pictures.photograph_file(name)
    image = Image.open(BytesIO(pictures.photograph_file(name))).convert("RGB")
    return pictures.save(image.resize((round(image.width * scale), round(image.height * scale))), "JPEG")


def cap_of(budget: dict[str, int]) -> int:
    bounds = [budget[name] // area for name, area in (("max_tokens", 1), ("max_pixels", 256)) if name in budget]
    return min(bounds, default=256)


@pytest.fixture(scope="module")
def crowd(loaded: Loaded) -> Iterator[Crowd]:
    """64 clients at once. The first pack waits until half of them are queued, as on a slower device.

    By that pack the device is slow beyond any deadline: those who come when it has run are not to be refused for it.
    """
    files = [photograph(name, scale) for name in pictures.PHOTOGRAPHS for scale in SCALES]
    budgets = [BUDGETS[number % len(BUDGETS)] for number in range(CLIENTS)]
    cases = [Case(files[number % len(files)], budget, cap_of(budget)) for number, budget in enumerate(budgets)]
    with serving(loaded, max_batch_tokens=2048, max_queue_tokens=CLIENTS * 256, default_timeout_ms=3_600_000) as server:
        server.runner.hold()
        with ThreadPoolExecutor(CLIENTS) as pool:
            futures = [pool.submit(server.embed, case.image, **case.budget) for case in cases]
            until(lambda: server.metric("queue_images") >= CLIENTS // 2)
            server.runner.free.set()
            answers = [future.result() for future in futures]
        assert [answer.text for answer in answers if answer.status_code != 200] == []
        until(lambda: server.is_empty() and server.metric("requests_total", route="/embed", status="200") == CLIENTS)
        yield Crowd(server, cases, answers)


def vectors_of(answers: list[httpx.Response]) -> list[list[float]]:
    return [answer.json()["data"][0]["embedding"] for answer in answers]


def test_each_of_64_clients_gets_the_bits_its_image_gets_alone(crowd: Crowd, loaded: Loaded) -> None:
    for case, vector in zip(crowd.cases, vectors_of(crowd.answers), strict=True):
        expected = normalized(alone(loaded[0], case.image, case.token_cap).pooled)[0]
        assert np.array_equal(np.array(vector, np.float32), expected)


def test_a_quiet_server_answers_the_same(crowd: Crowd, server: Running) -> None:
    for case, crowded in list(zip(crowd.cases, crowd.answers, strict=True))[::4]:
        quiet = server.embed(case.image, **case.budget)
        assert quiet.json() == crowded.json()


def test_each_of_64_clients_is_told_the_tokens_of_its_plan(crowd: Crowd) -> None:
    for case, answer in zip(crowd.cases, crowd.answers, strict=True):
        plan = plan_of(case.image, case.token_cap)
        (image,) = answer.json()["data"]
        assert answer.json()["usage"] == {"images": 1, "tokens": plan.tokens}
        assert (image["tokens"], image["token_cap"]) == (plan.tokens, case.token_cap)
        assert (image["size"], image["resized"]) == (list(plan.size), list(plan.resized))
        assert image["grid"] == list(plan.segments[0].grid)


def test_clients_share_packs_and_the_metrics_say_so(crowd: Crowd) -> None:
    server = crowd.server
    assert server.metric("pack_images_sum") == CLIENTS
    assert server.metric("pack_images_count") == len(server.runner.packs) < CLIENTS / 4
    assert max(map(len, server.runner.packs)) > 1


def test_usage_charged_tokens_and_computed_tokens_agree(crowd: Crowd) -> None:
    used = sum(answer.json()["usage"]["tokens"] for answer in crowd.answers)
    assert crowd.server.metric("charged_tokens_total") == used
    assert crowd.server.metric("tokens_total", kind="image") == used
    assert crowd.server.metric("image_tokens_sum") == used


def test_padding_waste_equals_a_count_by_hand(crowd: Crowd) -> None:
    server = crowd.server
    real = [sum(pack) for pack in server.runner.packs]
    waste = [(computed - tokens) / computed for computed, tokens in zip(server.runner.computed, real, strict=True)]
    assert server.metric("padding_waste_ratio_count") == len(waste)
    assert server.metric("padding_waste_ratio_sum") == pytest.approx(sum(waste))
    assert server.metric("tokens_total", kind="padding") == sum(server.runner.computed) - sum(real)
    assert server.metric("pack_tokens_sum") == sum(real)
    assert server.metric("pack_fill_ratio_sum") == pytest.approx(sum(real) / 2048)


def test_padding_avoided_equals_a_count_by_hand(crowd: Crowd) -> None:
    packs = crowd.server.runner.packs
    to_longest = sum(len(pack) * max(pack) - sum(pack) for pack in packs)
    to_cap = sum(case.token_cap for case in crowd.cases) - sum(map(sum, packs))
    assert to_longest > 0
    assert crowd.server.metric("padding_avoided_tokens_total", layout="pad_to_longest") == to_longest
    assert crowd.server.metric("padding_avoided_tokens_total", layout="pad_to_cap") == to_cap


def test_every_image_is_counted_as_embedded(crowd: Crowd) -> None:
    assert crowd.server.metric("images_total", outcome="embedded") == CLIENTS


# Clients that leave


@pytest.fixture
def small(loaded: Loaded) -> Iterator[Running]:
    """Room for three images of 16 tokens, two in a pack."""
    with serving(loaded, max_image_tokens=16, max_batch_tokens=32, max_queue_tokens=48) as running:
        yield running


def occupy(server: Running, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """One image of 12 tokens on the device, which waits until `free` is set."""
    server.runner.hold()
    future = pool.submit(server.embed, PNG, max_tokens=12)
    assert server.runner.entered.wait(PATIENCE_S)
    return future


def leave(connection: socket.socket) -> None:
    """Resets the connection, as the end of a killed process does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("ours", [True, False], ids=["our server", "another"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_client_that_leaves_while_queued_is_dropped_before_the_forward(
    small: Running, monkeypatch: pytest.MonkeyPatch, *, large: bool, ours: bool
) -> None:
    if not ours:
        monkeypatch.setattr(Departure, "put", lambda departure, scope: None)
    # uvicorn stops reading from a connection whose body comes faster than it is taken.
    body = pictures.save(pictures.picture(600, 800), "PNG", compress_level=0) if large else PNG
    assert (len(body) > 2**20) == large
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        connection = small.connect()
        connection.sendall(raw_request(body, path="/embed?max_tokens=4"))
        until(lambda: small.metric("queue_images") == 1)
        leave(connection)
        until(lambda: small.metric("queue_tokens") == 12)
        last = pool.submit(small.embed, PNG, max_tokens=16)
        until(lambda: small.metric("queue_tokens") == 24)
        small.runner.free.set()
        assert (first.result().status_code, last.result().status_code) == (200, 200)
    assert small.runner.packs == [[12], [12]]
    assert small.metric("images_total", outcome="abandoned") == 1


def test_a_client_that_leaves_gives_back_its_tokens_and_its_bytes(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        until(lambda: small.metric("inflight_bytes") == 0)
        connection = small.connect()
        # Nearly all of it: an upload that falls behind its pace is given up after 5 s.
        connection.sendall(raw_request(PNG[:-1], f"Content-Length: {len(PNG)}"))
        until(lambda: small.metric("inflight_bytes") == len(PNG))
        leave(connection)
        until(lambda: small.metric("inflight_bytes") == 0)
        small.runner.free.set()
        assert first.result().status_code == 200
    until(small.is_empty)


def test_a_client_that_left_counts_as_499_and_not_as_a_fault(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        connection = small.connect()
        connection.sendall(raw_request(PNG))
        until(lambda: small.metric("queue_images") == 1)
        leave(connection)
        until(lambda: small.metric("request_seconds_count", route="/embed") == 1)
        small.runner.free.set()
        first.result()
    assert small.metric("requests_total", route="/embed", status="499") == 1
    assert small.metric("requests_total", route="/embed", status="500") == 0


def test_a_client_that_leaves_while_it_sends_holds_nothing(small: Running) -> None:
    connection = small.connect()
    connection.sendall(raw_request(b"5\r\nabcde\r\n", "Transfer-Encoding: chunked"))
    until(lambda: small.metric("inflight_bytes") == 5)
    leave(connection)
    until(small.is_empty)
    assert small.embed(PNG).status_code == 200


# Deadlines


def test_a_deadline_that_passes_in_the_queue_is_504_and_costs_no_forward(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        late = small.embed(PNG, max_tokens=4, timeout_ms=100)
        assert error_of(late) == (504, "deadline_exceeded", None, 0)
        small.runner.free.set()
        assert first.result().status_code == 200
    assert small.embed(PNG).status_code == 200
    assert small.runner.packs == [[12], [12]]


def test_an_image_that_runs_is_answered_even_if_late(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        small.runner.hold()
        future = pool.submit(small.embed, PNG, timeout_ms=2000)
        assert small.runner.entered.wait(PATIENCE_S)
        late = small.embed(PNG, max_tokens=4, timeout_ms=2000)
        assert late.status_code == 504  # so the first one's deadline has passed as well
        assert not future.done()
        small.runner.free.set()
        assert future.result().status_code == 200


def test_a_late_image_of_a_partial_request_is_an_error_among_the_answers(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        late = small.embed(PNG, max_tokens=4, timeout_ms=100, partial=True)
        assert late.status_code == 200
        assert late.json()["data"][0]["error"]["code"] == "deadline_exceeded"
        assert late.json()["usage"] == {"images": 0, "tokens": 0}
        small.runner.free.set()
        first.result()


def test_a_deadline_that_passes_before_a_header_is_read_is_504(small: Running) -> None:
    """Headers that take seconds to read keep their threads; a request waits for one no longer than its deadline."""
    small.decoder.headers_free.clear()
    with ThreadPoolExecutor() as pool:
        future = pool.submit(small.embed, PNG, timeout_ms=100)
        try:
            assert future.result(PATIENCE_S).status_code == 504
        finally:
            small.decoder.headers_free.set()


# No room


def test_a_full_queue_is_429_with_retry_after_at_the_first_gate(loaded: Loaded) -> None:
    with serving(loaded, max_image_tokens=12, max_queue_tokens=12) as server, ThreadPoolExecutor() as pool:
        first = occupy(server, pool)
        refused = server.embed(PNG)
        assert error_of(refused) == (429, "overloaded", None, None)
        assert int(refused.headers["Retry-After"]) >= 1
        assert "max_queue_tokens" in refused.json()["error"]["message"]
        assert server.metric("rejected_total", reason="queue_full") == 1
        server.runner.free.set()
        first.result()
        until(server.is_empty)
        assert server.embed(PNG).status_code == 200


def test_the_first_gate_refuses_before_the_body_has_come(loaded: Loaded) -> None:
    with serving(loaded, max_image_tokens=12, max_queue_tokens=12) as server, ThreadPoolExecutor() as pool:
        first = occupy(server, pool)
        with server.connect() as connection:
            connection.sendall(raw_request(b"", "Content-Length: 1000"))
            answer, _ = read_answer(connection)
        assert answer.status == 429
        server.runner.free.set()
        first.result()


def test_a_request_too_large_for_what_is_left_is_429_at_the_second_gate_and_costs_no_decode(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        first = occupy(small, pool)
        decodes = small.decoder.decodes
        refused = small.embed_form([PNG] * 4)
        assert error_of(refused) == (429, "overloaded", None, None)
        assert int(refused.headers["Retry-After"]) >= 1
        assert small.decoder.decodes == decodes
        small.runner.free.set()
        first.result()
    until(small.is_empty)
    assert small.embed_form([PNG] * 3).status_code == 200


def test_a_request_that_could_never_fit_is_422_and_costs_no_decode(small: Running) -> None:
    assert error_of(small.embed_form([PNG] * 5)) == (422, "invalid", "max_request_tokens", None)
    assert small.decoder.decodes == 0
    assert small.embed_form([PNG] * 5, max_request_tokens=40).status_code == 200


def test_token_vectors_too_many_for_json_cost_no_decode(server: Running) -> None:
    decodes = server.decoder.decodes
    answer = server.embed_form([PNG] * 8, output="tokens", max_tokens=1024)
    assert error_of(answer) == (422, "invalid", "encoding", None)
    assert "base64" in answer.json()["error"]["message"]
    assert server.decoder.decodes == decodes


def test_bodies_over_the_bytes_in_flight_are_429_and_room_comes_back(loaded: Loaded) -> None:
    with serving(loaded, max_upload_bytes=10_000, max_inflight_bytes=10_000) as server:
        with server.connect() as slow:
            slow.sendall(raw_request(b"", "Content-Length: 9000"))
            until(lambda: server.metric("inflight_bytes") == 9000)
            refused = server.embed(PNG)
            assert error_of(refused)[:2] == (429, "overloaded")
            assert refused.headers["Retry-After"] == "1"
            assert server.metric("rejected_total", reason="bytes_in_flight") == 1
        until(server.is_empty)
        assert server.embed(PNG).status_code == 200


# Uploads


def test_clients_that_announce_much_and_send_nothing_leave_room_for_others(loaded: Loaded) -> None:
    with serving(loaded, max_upload_bytes=1_000_000, max_inflight_bytes=4_000_000) as server:
        silent = [server.connect() for _ in range(20)]
        for connection in silent:
            connection.sendall(raw_request(b"", "Content-Length: 1000000"))
        until(lambda: server.metric("inflight_bytes") == 20 * 65536)
        assert server.embed(PNG).status_code == 200
        for connection in silent:
            connection.close()
        until(server.is_empty)


def test_an_upload_reserves_bytes_as_it_comes_and_is_refused_once_they_do_not_fit(loaded: Loaded) -> None:
    with serving(loaded, max_upload_bytes=1_000_000, max_inflight_bytes=1_000_000) as server:
        with server.connect() as first, server.connect() as second:
            for connection in (first, second):
                connection.sendall(raw_request(b"", "Content-Length: 800000"))
            until(lambda: server.metric("inflight_bytes") == 2 * 65536)
            first.sendall(bytes(100_000))
            until(lambda: server.metric("inflight_bytes") == 800_000 + 65536)
            second.sendall(bytes(100_000))
            answer, body = read_answer(second)
            assert (answer.status, answer.headers["Connection"]) == (429, "close")
            assert b"max_inflight_bytes" in body
            first.sendall(bytes(700_000))
            assert read_answer(first)[0].status == 415
        until(server.is_empty)


def test_json_is_charged_only_for_its_images_while_they_wait(small: Running) -> None:
    with ThreadPoolExecutor() as pool:
        small.decoder.headers_free.clear()
        content = {"images": [b64encode(PNG).decode()] * 2}
        future = pool.submit(small.http.post, "/embed", json=content)
        until(lambda: small.metric("inflight_bytes") == 2 * len(PNG))
        small.decoder.headers_free.set()
        assert future.result().status_code == 200
    until(small.is_empty)


@pytest.fixture(scope="module")
def strict(loaded: Loaded) -> Iterator[Running]:
    """Short timeouts, and bodies of at most 20,000 bytes."""
    with serving(loaded, max_upload_bytes=20_000, upload_timeout_ms=300) as running:
        yield running


def test_an_upload_that_announces_too_much_is_refused_before_it_comes(strict: Running) -> None:
    with strict.connect() as connection:
        connection.sendall(raw_request(b"", "Content-Length: 20001"))
        answer, body = read_answer(connection)
    assert answer.status == 413
    assert b"max_upload_bytes" in body


def test_a_client_that_sends_too_much_can_still_read_why(strict: Running) -> None:
    with strict.connect() as connection:
        connection.sendall(raw_request(bytes(2_000_000)))
        answer, body = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
        assert b"max_upload_bytes" in body


def test_a_chunked_upload_is_cut_at_the_limit_and_not_after_it(strict: Running) -> None:
    piece = b"3e8\r\n" + bytes(1000) + b"\r\n"
    with strict.connect() as connection:
        connection.sendall(raw_request(b"", "Transfer-Encoding: chunked"))
        connection.sendall(piece * 20)
        until(lambda: strict.metric("inflight_bytes") == 20_000)
        connection.sendall(b"1\r\n.\r\n")
        answer, body = read_answer(connection)
    assert answer.status == 413
    assert b"max_upload_bytes" in body
    until(strict.is_empty)


def test_an_endless_upload_is_cut(strict: Running) -> None:
    """The server throws away what comes after the answer for two seconds, and then closes the connection."""
    with strict.connect() as connection:
        connection.sendall(raw_request(b"", "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        pieces = 1_000_000
        assert send_until_cut(connection, piece, pieces) < pieces * len(piece)
    until(strict.is_empty)


def test_bytes_held_never_pass_the_limit_while_an_upload_is_cut(strict: Running) -> None:
    with strict.connect() as connection:
        connection.sendall(raw_request(b"ffff\r\n" + bytes(0xFFFF) + b"\r\n", "Transfer-Encoding: chunked"))
        answer, _ = read_answer(connection)
        assert answer.status == 413
        assert strict.metric("inflight_bytes") <= 20_000


@pytest.mark.parametrize("header", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_slow_upload_is_408(strict: Running, header: str) -> None:
    with strict.connect() as connection:
        connection.sendall(raw_request(b"3\r\nabc\r\n", header))
        answer, body = read_answer(connection)
    assert answer.status == 408
    assert b"upload_timeout_ms" in body
    until(strict.is_empty)


def test_a_slow_upload_gives_its_bytes_back_with_its_answer(strict: Running) -> None:
    """Not two seconds later, when the rest of the body is given up."""
    with strict.connect() as connection:
        connection.sendall(raw_request(b"abc", "Content-Length: 20000"))
        answer, _ = read_answer(connection)
        assert answer.status == 408
        assert strict.embed(PNG).status_code == 200
        assert strict.metric("inflight_bytes") == 0


def test_the_next_request_on_the_server_is_served(strict: Running) -> None:
    assert strict.embed(PNG).status_code == 200


def test_a_client_that_expects_100_continue_gets_it(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(raw_request(b"", f"Content-Length: {len(PNG)}", "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(PNG)
        assert read_answer(connection)[0].status == 200


def test_a_client_that_expects_100_continue_for_too_much_is_refused(strict: Running) -> None:
    with strict.connect() as connection:
        connection.sendall(raw_request(b"", "Content-Length: 20001", "Expect: 100-continue"))
        assert read_answer(connection)[0].status == 413


# Clients that do not read

ACCEPTS = ("application/json", "application/x-safetensors")


@contextmanager
def unread(server: Running, accept: str, *headers: str) -> Iterator[socket.socket]:
    """A client that reads only the first line of an answer of 8 MB, more than sockets hold."""
    part = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + PNG + b"\r\n"
    path = "/embed?output=tokens&encoding=base64&max_tokens=1024"
    kind = "multipart/form-data; boundary=x"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(raw_request(part * 10 + b"--x--\r\n", f"Accept: {accept}", *headers, path=path, kind=kind))
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        yield connection


@pytest.fixture
def patience_over(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Once it is set, the server gives up a client that takes nothing of its answer, and not before."""
    over, give_up = threading.Event(), BoundedProtocol._give_up_reader

    def give_up_once_over(self: BoundedProtocol) -> None:
        if over.is_set():
            give_up(self)
        else:
            self._unread_timer = None
            self._start_unread_timer()

    monkeypatch.setattr("service.http.protocol.connection._UNREAD_S", 0.02)
    monkeypatch.setattr(BoundedProtocol, "_give_up_reader", give_up_once_over)
    return over


@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_client_that_does_not_read_holds_the_bytes_of_its_answer_and_no_tokens(loaded: Loaded, accept: str) -> None:
    with serving(loaded, max_queue_tokens=10_240) as server, unread(server, accept, "Connection: close") as connection:
        assert server.embed(PNG, max_tokens=1024).status_code == 200
        assert server.metric("inflight_bytes") > 1_000_000
        while connection.recv(65536):
            pass
        until(server.is_empty)


@pytest.mark.parametrize("accept", [ACCEPTS[0], pytest.param(ACCEPTS[1], marks=pytest.mark.slow)])
def test_a_client_that_never_reads_is_given_up(
    server: Running, accept: str, patience_over: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    with unread(server, accept):
        assert server.metric("inflight_bytes") > 1_000_000
        patience_over.set()
        until(server.is_empty)
    assert not [record for record in caplog.records if record.exc_info]


def is_served(server: Running) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{server.port}/v1/models", trust_env=False).status_code == 200
    return False


@pytest.mark.slow
def test_clients_that_never_read_lose_their_connections_and_their_bytes_count_until_then(
    loaded: Loaded, patience_over: threading.Event
) -> None:
    with serving(loaded, max_connections=2) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(unread(server, "application/json"))
        assert not is_served(server)
        assert server.metric("inflight_bytes") > 2_000_000
        patience_over.set()
        until(lambda: is_served(server) and server.is_empty())


def test_a_client_that_does_not_read_the_last_bytes_of_an_answer_loses_its_connection(
    loaded: Loaded, patience_over: threading.Event
) -> None:
    """The transport has those bytes, and its `close()` waits for them."""
    with serving(loaded, max_connections=1) as server, unread(server, ACCEPTS[0], "Connection: close") as connection:
        # Much faster than `server.metric`, and asked for after every piece.
        while next(iter(server.metrics.inflight_bytes.collect())).samples[0].value:
            assert connection.recv(4096)
        patience_over.set()
        until(lambda: is_served(server))


# All at once


class Moody(NoTexts):
    """A device that fails every pack with an image of a multiple of five tokens."""

    def __init__(self, runner: PackRunner) -> None:
        self._runner = runner

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        if (np.diff(batch.cu_seqlens) % 5 == 0).any():
            raise RuntimeError
        return self._runner.run(batch, tokens=tokens)


def test_after_every_fault_at_once_nothing_is_held_and_each_client_that_stayed_got_one_answer(loaded: Loaded) -> None:
    random = Random(0)
    bodies = [PNG, PNG, PNG, PNG[:300], b"text", pictures.photograph_file("rocket.jpg")]

    def visit(seed: float) -> int:
        """One client, which may leave at any moment. Returns the status of its answer, or 0."""
        mine = Random(seed)
        body, tokens, timeout_ms = mine.choice(bodies), mine.randint(1, 64), mine.choice((5, 50, 10_000))
        request = raw_request(body, path=f"/embed?max_tokens={tokens}&timeout_ms={timeout_ms}")
        with server.connect() as connection:
            if mine.random() < 0.3:
                connection.sendall(request[: mine.randint(1, len(request))])
                connection.setblocking(False)
                with suppress(BlockingIOError):
                    connection.recv(mine.choice((0, 1)))
                leave(connection)
                return 0
            connection.sendall(request)
            return read_answer(connection)[0].status

    with serving(loaded, max_image_tokens=64, max_batch_tokens=128, max_queue_tokens=600) as server:
        server.runner.runner = Moody(server.runner.runner)
        with ThreadPoolExecutor(24) as pool:
            statuses = list(pool.map(visit, [random.random() for _ in range(400)]))
        until(server.is_empty)
        assert set(statuses) - {0} >= {200, 415, 422, 500}
        assert set(statuses) <= {0, 200, 415, 422, 429, 500, 504}
        server.runner.runner = loaded[0]
        assert server.embed(PNG).status_code == 200
        assert server.metric("charged_tokens_total") <= server.metric("tokens_total", kind="image")
