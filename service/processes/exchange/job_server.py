"""The engine's end: takes jobs from every process that knows the secret, and answers each job once.

A pack's answers to one process leave together. What a process that has gone had queued is dropped.
"""

import asyncio
import hmac
import logging
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from service.engine.client import Job
from service.engine.delivery import Pending
from service.engine.engine import Engine
from service.engine.outcomes import Outcome
from service.errors import EngineFault, ServiceError
from service.processes.exchange import messages
from service.processes.exchange.framed import LENGTHS, FramedSocket, Frames
from service.processes.exchange.messages import (
    Answer,
    Cancel,
    Dropped,
    Embed,
    EmbedDocument,
    EmbedText,
    EngineState,
    Hello,
    TellPacks,
)
from service.processes.exchange.slab import SlabError, SlabView
from service.processes.exchange.wire import answer_frames, answer_of, read_job
from service.processes.messages import MalformedMessage, encode

# More than a greeting takes.
_GREETING_BYTES = 4096
# The most that a frame has beside an image's rows.
_HEAD_BYTES = 64 * 1024
# An answer with more bytes of vectors than this is a frame of its own, so that no other vector keeps them in memory.
_SHARED_BYTES = 64 * 1024
_CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger(__name__)


class _Client:
    """One process that is known. jobs: those that are not answered, by its own numbers. tokens: of these jobs.
    bulk_tokens: of the bulk ones."""

    def __init__(self, name: str, slab: SlabView) -> None:
        self.name, self.slab = name, slab
        self.socket: FramedSocket
        self.jobs: dict[int, Pending] = {}
        self.tokens = self.bulk_tokens = 0


class JobServer:
    """Listens on an abstract socket, and is the engine's receiver."""

    def __init__(self, engine: Engine, listening: socket.socket, secret: str, *, max_row_bytes: int) -> None:
        """max_row_bytes: of all rows of a job."""
        self._engine, self._secret, self._max_frame_bytes = engine, secret.encode(), max_row_bytes + _HEAD_BYTES
        self._clients: set[_Client] = set()
        self._owners: dict[Pending, tuple[_Client, int]] = {}
        self._loop = asyncio.get_running_loop()
        # Holds the error of a message that cannot be read. The process must not outlive it: jobs would be lost.
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._listening = listening
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    @property
    def held_tokens(self) -> int:
        """Tokens of all jobs that are not answered."""
        return sum(client.tokens for client in self._clients)

    def send_news(self) -> None:
        """To all: without it, one that last heard of a busy engine would never use the engine again."""
        for client in self._clients:
            client.socket.send([encode(messages.News(self._state_for(client)))])

    def close(self) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        for client in list(self._clients):
            client.socket.close()

    # Greeting

    def _accept(self) -> None:
        try:
            end, _ = self._listening.accept()
        except OSError as error:
            _log.error("a connection to the engine cannot be taken: %s", error)
            return
        end.setblocking(False)
        # An abstract name has no file whose permissions would keep other users away.
        _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.getuid():
            end.close()
            return
        self._loop.add_reader(end.fileno(), self._greet, end)

    def _greet(self, end: socket.socket) -> None:
        """A stranger may send anything. A greeting comes whole, because it is sent whole."""
        self._loop.remove_reader(end.fileno())
        descriptors: list[int] = []
        try:
            data, descriptors, _, _ = socket.recv_fds(end, _GREETING_BYTES, 1)
            head_bytes, _ = LENGTHS.unpack_from(data)
            hello = messages.request(data[LENGTHS.size : LENGTHS.size + head_bytes])
            if not isinstance(hello, Hello) or not hmac.compare_digest(hello.secret.encode(), self._secret):
                raise MalformedMessage("not the greeting of a process of this server")
            client = _Client(hello.name, SlabView(*descriptors))
        except (OSError, struct.error, MalformedMessage, SlabError, TypeError):
            end.close()
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        client.socket = FramedSocket(
            end, partial(self._heard, client), on_end=partial(self._gone, client),
            max_frame_bytes=self._max_frame_bytes, read=data[LENGTHS.size + head_bytes :],
        )  # fmt: skip
        self._clients.add(client)

    def _gone(self, client: _Client) -> None:
        """Its process has ended: nobody waits for its jobs."""
        self._clients.discard(client)
        for queued in client.jobs.values():
            self._engine.drop(queued)
            del self._owners[queued]
        client.jobs.clear()

    # Jobs

    def _heard(self, client: _Client, frames: Sequence[tuple[memoryview, memoryview]]) -> None:
        try:
            self._take(client, frames)
        except Exception as error:
            if not self.broken.done():
                self.broken.set_exception(error)

    def _take(self, client: _Client, frames: Sequence[tuple[memoryview, memoryview]]) -> None:
        jobs: list[tuple[int, Job]] = []
        for head, behind in frames:
            match message := messages.request(head):
                case Embed(number=number) | EmbedText(number=number) | EmbedDocument(number=number):
                    try:
                        jobs.append((number, read_job(message, f"{client.name}:{number}", behind, client.slab)))
                    except MalformedMessage as error:
                        _log.error("a job cannot be read: %s", error)
                        self._send(client, [answer_of(number, _fault())])
                case Cancel(number=number):
                    self._enqueue(client, jobs)
                    jobs = []
                    self._cancel(client, number)
                case TellPacks(ended_s=ended_s):
                    packs = [pack for device in self._engine.packs for pack in device if pack.ended_s > ended_s]
                    client.socket.send([encode(messages.Packs(self._state_for(client), packs))])
        self._enqueue(client, jobs)

    def _enqueue(self, client: _Client, jobs: Sequence[tuple[int, Job]]) -> None:
        if not jobs:
            return
        try:
            queued = self._engine.enqueue([job for _, job in jobs], self)
        except ServiceError as error:
            self._send(client, [answer_of(number, error) for number, _ in jobs])
            return
        for (number, job), each in zip(jobs, queued, strict=True):
            client.jobs[number] = each
            client.tokens += job.tokens
            client.bulk_tokens += job.tokens * job.bulk
            self._owners[each] = (client, number)

    def _cancel(self, client: _Client, number: int) -> None:
        queued = client.jobs.get(number)
        if queued is not None and self._engine.drop(queued):
            self._forget(queued)
            self._send(client, [(Dropped(number), [])])

    # Answers

    def receive(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        """Called by the engine's thread."""
        with suppress(RuntimeError):  # the loop has closed, and the process ends
            self._loop.call_soon_threadsafe(self._answer, outcomes)

    def _answer(self, outcomes: Sequence[tuple[Pending, Outcome]]) -> None:
        of: dict[_Client, list[tuple[Answer, Frames]]] = {}
        for queued, outcome in outcomes:
            owner = self._owners.get(queued)
            if owner is not None:
                client, number = owner
                self._forget(queued)
                of.setdefault(client, []).append(answer_of(number, outcome))
        for client, answers in of.items():
            self._send(client, answers)

    def _forget(self, queued: Pending) -> None:
        client, number = self._owners.pop(queued)
        del client.jobs[number]
        client.tokens -= queued.tokens
        client.bulk_tokens -= queued.tokens * queued.bulk

    def _send(self, client: _Client, answers: Sequence[tuple[Answer, Frames]]) -> None:
        shared = [each for each in answers if _size_bytes(each) <= _SHARED_BYTES]
        large = [[each] for each in answers if _size_bytes(each) > _SHARED_BYTES]
        state = self._state_for(client)
        for group in [shared, *large] if shared else large:
            client.socket.send(answer_frames(state, group))

    def _state_for(self, client: _Client) -> EngineState:
        others_tokens = self.held_tokens - client.tokens
        others_bulk_tokens = sum(each.bulk_tokens for each in self._clients) - client.bulk_tokens
        engine = self._engine
        return EngineState(
            engine.any_device_ready, engine.tokens_per_s, others_tokens, engine.cost, len(self._clients),
            others_bulk_tokens, engine.trust.proven_s,
        )  # fmt: skip


def _size_bytes(answer: tuple[Answer, Frames]) -> int:
    return sum(map(len, answer[1]))


def _fault() -> EngineFault:
    return EngineFault("the engine failed; nothing was charged")
