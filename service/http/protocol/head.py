"""What the head of a request may be. Pure: knows no connection."""

from collections.abc import Sequence

from service.errors import BadRequest, HeadersTooLarge, ServiceError

MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 128


def fault_of_head(
    method: bytes, url: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]
) -> ServiceError | None:
    """Why a request is refused by its head. headers: with lower-case names."""
    head_bytes = len(url) + sum(len(name) + len(value) for name, value in headers)
    if head_bytes > MAX_HEAD_BYTES or len(headers) > _MAX_HEADERS:
        return headers_too_large()
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return BadRequest(f"an HTTP/1.1 request has one Host header (RFC 9112, 3.2); this one has {hosts}")
    if method == b"CONNECT":
        return BadRequest("CONNECT asks for a tunnel, and this server is no proxy")
    return None


def headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"the request line and headers, or the trailers, are over {MAX_HEAD_BYTES} bytes, or the headers over "
        f"{_MAX_HEADERS} lines: the most they may be"
    )
