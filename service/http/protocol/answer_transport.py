"""The transport that an answer is written to: its head goes out with the first piece of its body.

uvicorn writes them apart, and each write is a call to the system, a packet, and a turn of the client's.
"""

import asyncio

_INTERIM = b"HTTP/1.1 1"
_LENGTH, _NO_BODY = b"\r\ncontent-length: ", b"\r\ncontent-length: 0\r\n"


class AnswerTransport:
    """For one answer. A head that no piece of known length follows is written at once, as that of a stream."""

    def __init__(self, transport: asyncio.Transport, *, has_body: bool) -> None:
        """has_body: False for the answer to HEAD."""
        self._transport = transport
        self._before_head, self._head = has_body, b""

    def write(self, data: bytes) -> None:
        if self._before_head and not data.startswith(_INTERIM):
            self._before_head = False
            if _LENGTH in data and _NO_BODY not in data:
                self._head = data
                return
        elif self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()
