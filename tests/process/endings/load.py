"""What is asked of a server while parts of it end, and what its answers have to be."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx

from tests import pictures
from tests.process.server import PAUSE_S, Server
from tests.waiting import until

PHOTOGRAPH = pictures.photograph_file("rocket.jpg")
TIFF = pictures.save(pictures.picture(48, 64), "TIFF")


class Load:
    """Clients that ask for pictures and metrics again and again, and keep what they get."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._over, self._may_ask = threading.Event(), threading.Event()
        self._may_ask.set()
        # Clients that ask, or wait for an answer.
        self._asking: set[int] = set()
        self.vectors: list[tuple[int, str]] = []
        self.statuses: set[int] = set()
        self.hanging: list[str] = []
        asking = [self._photograph, self._photograph, self._tiff, self._metrics]
        self._clients = [threading.Thread(target=self._run, args=(ask,)) for ask in asking]
        for client in self._clients:
            client.start()

    def _run(self, ask: Callable[[httpx.Client, int], None]) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False, verify=False) as client:
            number = 0
            while not self._over.wait(PAUSE_S):
                number += 1
                self._asking.add(threading.get_ident())
                if self._may_ask.is_set():
                    self._ask(ask, client, 16 + number % 5)
                self._asking.discard(threading.get_ident())

    def _ask(self, ask: Callable[[httpx.Client, int], None], client: httpx.Client, tokens: int) -> None:
        try:
            ask(client, tokens)
        except httpx.TimeoutException as error:
            self.hanging.append(repr(error))
        except httpx.TransportError:
            pass

    def _photograph(self, client: httpx.Client, tokens: int) -> None:
        self._embed(client, PHOTOGRAPH, tokens)

    def _tiff(self, client: httpx.Client, tokens: int) -> None:
        # On new connections, so that all HTTP processes decode: one that is idle is missed when it is to be used.
        client.headers["Connection"] = "close"
        self._embed(client, TIFF, tokens + 100)

    def _embed(self, client: httpx.Client, image: bytes, tokens: int) -> None:
        parameters = {"max_tokens": str(tokens % 100), "encoding": "base64"}
        answer = client.post("/embed", content=image, params=parameters, headers={"Content-Type": "image/*"})
        self.statuses.add(answer.status_code)
        if answer.status_code == 200:
            self.vectors.append((tokens, answer.json()["data"][0]["embedding"]))

    def _metrics(self, client: httpx.Client, tokens: int) -> None:
        # Asked of all HTTP processes: a thread that helps ends with the next thing that it is to do.
        client.get("/metrics", headers={"Connection": "close"})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No client asks meanwhile, and soon none waits for an answer, unless the server does not answer."""
        self._may_ask.clear()
        try:
            with suppress(AssertionError):
                until(lambda: not self._asking, patience_s=3)
            yield
        finally:
            self._may_ask.set()

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def goes_on(self) -> None:
        """Waits until clients have got some more answers."""
        answers = len(self.vectors)
        until(lambda: len(self.vectors) > answers + 5)

    def check(self, quiet: dict[int, str]) -> None:
        """None was wrong, none hangs, and faults of the server were said to be such."""
        assert self.hanging == []
        # 422: the process that decoded a picture was ended, for which the picture may be to blame.
        assert self.statuses <= {200, 422, 500, 503}
        assert set(self.vectors) <= set(quiet.items())


def quiet_of(server: Server) -> dict[int, str]:
    """The vector of each picture that clients ask for."""

    def vector(image: bytes, tokens: int) -> str:
        return str(server.embed(image, max_tokens=tokens, encoding="base64").json()["data"][0]["embedding"])

    photographs = {tokens: vector(PHOTOGRAPH, tokens) for tokens in range(16, 21)}
    return photographs | {100 + tokens: vector(TIFF, tokens) for tokens in range(16, 21)}


@contextmanager
def under_load(server: Server, quiet: dict[int, str]) -> Iterator[Load]:
    """Answers are checked at the end. quiet: what they have to be."""
    with _listening(server):
        load = Load(server.port)
        try:
            load.goes_on()
            yield load
        finally:
            load.stop()
    load.check(quiet)


@contextmanager
def _listening(server: Server) -> Iterator[None]:
    """Follows /stats, until the stream or the server ends."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(httpx.TransportError), server.http.stream("GET", "/stats") as stream:
                for _ in stream.iter_lines():
                    if over.is_set():
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()
