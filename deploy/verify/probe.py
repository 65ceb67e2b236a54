"""Sends one request of made-up images to a server and says what came back; waits for the answer however long.

python deploy/verify/probe.py http://127.0.0.1:8000
"""

import argparse
import base64
import json
import os
import struct
import sys
import zlib
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_IMAGES, _SIDE = 4, 64


def png(side: int) -> bytes:
    """A square grey ramp, as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = b"".join(bytes([0]) + bytes((x + y) % 256 for x in range(side)) for y in range(side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main() -> int:
    """0 where the server answered 200 with an embedding for every image."""
    parser = argparse.ArgumentParser(description="Sends one request of made-up images.", allow_abbrev=False)
    parser.add_argument("url")
    args = parser.parse_args()
    image = base64.b64encode(png(_SIDE)).decode()
    body = json.dumps({"images": [image] * _IMAGES, "encoding": "base64"})
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("PROBE_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urlopen(Request(f"{args.url}/embed", body.encode(), headers), timeout=120) as response:
            answer = json.load(response)
    except HTTPError as error:
        sys.stdout.write(f"{error.code}\n")
        return 1
    embedded = sum("embedding" in item for item in answer["data"])
    sys.stdout.write(f"200: {embedded} embeddings of {answer['model']}, {answer['usage']['tokens']} tokens\n")
    return 0 if embedded == _IMAGES else 1


if __name__ == "__main__":
    sys.exit(main())
