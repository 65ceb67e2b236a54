"""Reads an answer: the images and tokens it charged, its stage times, the reason of a refusal.

An answer may hold megabytes of floats and is read while others are timed. So the usage is cut out of the bytes and the
vectors are not parsed. This module knows nothing of sending.
"""

import json
import re
from typing import Any, NamedTuple

_DECODER = json.JSONDecoder()
_TIMING = re.compile(r'([!#$%&\'*+.^_`|~\w-]+)((?:\s*;\s*[\w-]+\s*=\s*(?:"[^"]*"|[^;,]*))*)')
_DURATION = re.compile(r";\s*dur\s*=\s*\"?([0-9.eE+-]+)")


class Usage(NamedTuple):
    """Images and texts answered, and tokens charged; -1 if the answer does not say."""

    images: int
    tokens: int


def read_usage(body: bytes, image_tokens: str | None) -> Usage:
    """From the `X-Image-Tokens` header if there is one, otherwise from the `usage` object of a JSON body."""
    if image_tokens:
        counts = [int(count) for count in image_tokens.split(",") if count.strip().isdigit()]
        return Usage(len(counts), sum(counts))
    usage = _cut_usage(body)
    tokens = usage.get("tokens", usage.get("prompt_tokens", usage.get("total_tokens", -1)))
    images, texts = usage.get("images", body.count(b'"index"') or -1), usage.get("texts", 0)
    items = images + texts if isinstance(images, int) and isinstance(texts, int) else -1
    return Usage(items, tokens if isinstance(tokens, int) else -1)


def _cut_usage(body: bytes) -> dict[str, Any]:
    place = body.rfind(b'"usage"')
    start = body.find(b"{", place)
    if place < 0 or start < 0:
        return {}
    try:
        usage, _ = _DECODER.raw_decode(body[start : start + 2000].decode("utf-8", "replace"))
    except ValueError:
        return {}
    return usage if isinstance(usage, dict) else {}


def read_server_timing(header: str) -> dict[str, float]:
    """Milliseconds by name. A name given twice is added up; one without a duration is left out."""
    stages: dict[str, float] = {}
    for name, attributes in _TIMING.findall(header):
        if found := _DURATION.search(attributes):
            stages[name] = stages.get(name, 0.0) + _as_float(found[1])
    return stages


def _as_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def read_error(body: bytes) -> str:
    """The message of an error answer in Packlight's, OpenAI's or FastAPI's shape, otherwise the start of its text."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    found: Any = content
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    text = found if isinstance(found, str) else body.decode("utf-8", "replace")
    return " ".join(text.split())[:200]
