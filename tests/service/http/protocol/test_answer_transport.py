"""An answer of known length leaves in one write; no head waits for a body that may come late or never."""

import asyncio

import pytest

from service.http.protocol.answer_transport import AnswerTransport

KNOWN = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Written(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes | None] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.writes.append(None)


@pytest.mark.parametrize(
    ("given", "written", "has_body"),
    [
        ([KNOWN, b"1234"], [KNOWN + b"1234"], True),
        ([KNOWN, b"12", b"34"], [KNOWN + b"12", b"34"], True),
        ([KNOWN, b"", b"1234"], [KNOWN, b"1234"], True),
        ([CONTINUE, KNOWN, b"1234"], [CONTINUE, KNOWN + b"1234"], True),
        ([KNOWN], [KNOWN], False),
        ([EMPTY], [EMPTY], True),
        ([STREAM, b"4\r\n1234\r\n"], [STREAM, b"4\r\n1234\r\n"], True),
        ([KNOWN, None], [KNOWN, None], True),
        ([KNOWN, KNOWN], [KNOWN + KNOWN], True),
    ],
)
def test_what_is_written_leaves_in_these_writes(
    given: list[bytes | None], written: list[bytes | None], has_body: bool
) -> None:
    kept = Written()
    answer = AnswerTransport(kept, has_body=has_body)
    for piece in given:
        if piece is None:
            answer.close()
        else:
            answer.write(piece)
    assert kept.writes == written
