"""What every client asks a server for, and what it must get."""

import base64
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tests import pictures
from tests.service.running import Running

PHOTO = pictures.photograph_file("rocket.jpg")
# 8 MB: its body comes in many pieces, and clients that can wait for `100 Continue`.
BIG = pictures.save(
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (1400, 2000, 3), dtype=np.uint8)), "BMP"
)  # fmt: skip
PATH = "/embed?max_tokens=64&encoding=base64"


@dataclass
class Seen:
    """What the server saw. connections: how many were made. heads: the headers of each request, by lower-case name."""

    connections: int = 0
    heads: list[dict[str, str]] = field(default_factory=list)


def data_uri(image: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def expected(server: Running, image: bytes) -> bytes:
    """The answer to one image at `PATH`. However it is sent, and whatever beside it, no bit of it differs."""
    answer = server.embed(image, max_tokens=64, encoding="base64")
    assert answer.status_code == 200
    return answer.content
