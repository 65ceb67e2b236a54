"""The formats of an answer: which one a request's `Accept` header asks for, and what each can hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from service.errors import Invalid
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters

Format = Literal["json", "npy", "safetensors"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "npy": "application/x-npy",
    "safetensors": "application/x-safetensors",
}
OCTETS = "application/octet-stream"
# Token vectors over this many bytes of float32 are refused as JSON numbers, which take five times as much.
MAX_JSON_TOKEN_BYTES = 1_000_000

# Elements of an `Accept` header that are read. Browsers send ten; 32 KiB of commas would take 200 ms.
_MAX_RANGES = 100
_QUALITY = re.compile(r"[01](\.\d*)?")
# How exactly a range names a type: `*/*` 0, `application/*` 1, and the type itself.
_NAMED = 2


def choose_format(accept: str, parameters: EmbedParameters) -> Format:
    """The format that an `Accept` header asks for. Raises `Invalid` if it cannot hold the answer."""
    chosen = accepted_format(accept)
    if chosen == "json":
        return chosen
    if parameters.partial:
        raise Invalid(f"{MEDIA_TYPES[chosen]} has no room for errors; with partial, ask for JSON", param="partial")
    if parameters.output == "segments" or (chosen == "npy" and parameters.output != "embedding"):
        raise Invalid(f"{MEDIA_TYPES[chosen]} cannot hold output={parameters.output}", param="output")
    return chosen


def check_size(tokens: int, model: ModelFacts, parameters: EmbedParameters, chosen: Format) -> None:
    """Raises `Invalid` for more token vectors than JSON numbers may hold. Needs no decoded image."""
    as_numbers = chosen == "json" and parameters.encoding == "float" and parameters.wants_tokens
    vectors = model.output_tokens(tokens)
    if as_numbers and vectors * model.token_dim * 4 > MAX_JSON_TOKEN_BYTES:
        raise Invalid(
            f"{vectors} token vectors of {model.token_dim} take over {MAX_JSON_TOKEN_BYTES:,} bytes; "
            f"ask for encoding=base64 or Accept: {MEDIA_TYPES['safetensors']}",
            param="encoding",
        )


@lru_cache(maxsize=64)
def accepted_format(accept: str) -> Format:
    """The format with the highest `q` (RFC 9110, 12.5.1).

    Between equal ones, a named format goes before one that only a wildcard covers. JSON is the last of several named
    ones, since clients of arrays name it for errors, and the first under wildcards. A header that accepts none of the
    formats is disregarded, as the RFC allows: the answer is JSON.
    """
    ranges = list(_media_ranges(accept))
    best: Format = "json"
    best_rank = (0.0, False, False)
    for name, media_type in MEDIA_TYPES.items():
        specificity, quality = max((found for each in ranges if (found := each.match(media_type))), default=(0, 0.0))
        named = specificity == _NAMED
        rank = (quality, named, named == (name != "json"))
        if quality and rank > best_rank:
            best, best_rank = name, rank
    return best


@dataclass(frozen=True, slots=True)
class _MediaRange:
    kind: str
    quality: float

    def match(self, media_type: str) -> tuple[int, float] | None:
        """How exactly the range names a media type, and how much the client wants it. None if it does not cover it."""
        kinds = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
        return (kinds.index(self.kind), self.quality) if self.kind in kinds else None


def _media_ranges(accept: str) -> Iterator[_MediaRange]:
    """The ranges of a header that can match a type without parameters, as ours are. What cannot be read is skipped."""
    # Commas and semicolons inside quoted strings separate nothing, and what is quoted matters to no type of ours.
    unquoted = '""'.join(accept.replace(r"\\", "").replace(r"\"", "").split('"')[::2])
    for element in unquoted.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        kind, *parameters = (part.strip().lower() for part in element.split(";"))
        qualities = [value for value in parameters if value.startswith("q=")]
        if len(qualities) < len([value for value in parameters if value]):
            continue
        quality = qualities[0].removeprefix("q=") if qualities else "1"
        if _QUALITY.fullmatch(quality):
            yield _MediaRange(kind, min(1.0, float(quality)))
