"""Whole HTTP requests for one photo, in the form that each server takes."""

import base64
import io
import json
import re
import socket
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.traffic.pictures import Studio

_PHOTOS, _HEIGHT, _WIDTH = 8, 384, 512
_BOUNDARY = "bench-of-packlight"


class Refused(Exception):
    """The answer was not a 200."""


@cache
def photos() -> list[bytes]:
    """JPEG files of 0.2 megapixels that cost as much to decode as real ones. The same on every call."""
    studio, random = Studio(1), np.random.default_rng(1)
    files = []
    for _ in range(_PHOTOS):
        file = io.BytesIO()
        studio.photo(_HEIGHT, _WIDTH, random).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def packlight(photo: bytes, max_tokens: int, *, more: str = "") -> bytes:
    """more: parameters of the query."""
    return _post(f"/embed?max_tokens={max_tokens}{more}", "image/jpeg", photo)


def packlight_form(photos: Sequence[bytes], max_tokens: int, *, more: str = "") -> bytes:
    """All in one request."""
    return _post(f"/embed?max_tokens={max_tokens}{more}", f"multipart/form-data; boundary={_BOUNDARY}", _form(photos))


def packlight_json(photo: bytes, max_tokens: int) -> bytes:
    body = json.dumps({"images": [base64.b64encode(photo).decode()], "max_tokens": max_tokens}).encode()
    return _post("/embed", "application/json", body)


def litserve(photo: bytes, max_tokens: int) -> bytes:
    """A form, the cheapest way that it takes a file: no base64."""
    field = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="max_tokens"\r\n\r\n{max_tokens}\r\n'
    return _post("/predict", f"multipart/form-data; boundary={_BOUNDARY}", field.encode() + _form([photo]))


def _form(photos: Sequence[bytes]) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n\r\n'.encode()
    return b"".join(head + photo + b"\r\n" for photo in photos) + f"--{_BOUNDARY}--\r\n".encode()


def infinity(photo: bytes) -> bytes:
    """JSON with a data URI, the only way that it takes a file."""
    uri = "data:image/jpeg;base64," + base64.b64encode(photo).decode()
    body = json.dumps({"model": "clip", "input": [uri], "modality": "image"}).encode()
    return _post("/embeddings", "application/json", body)


def _post(target: str, kind: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def vector(port: int, request: bytes) -> NDArray[np.float64]:
    """The vector in the answer of any of the three servers. Raises `Refused`."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(request)
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536) or _end()
        head, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536) or _end()
    if head[9:12] != b"200":
        raise Refused(f"{head.splitlines()[0].decode('latin-1')}: {body[:200].decode('utf-8', 'replace')}")
    answer: dict[str, Any] = json.loads(body)
    return np.array(answer["embedding"] if "embedding" in answer else answer["data"][0]["embedding"])


def _end() -> bytes:
    raise Refused("the connection was closed")
