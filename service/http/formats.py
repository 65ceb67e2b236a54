"""The formats of an answer: which one a request's `Accept` header asks for, and what each can hold."""

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
# Token vectors over this many bytes of float32 are refused as JSON numbers, which take five times as much.
MAX_JSON_TOKEN_BYTES = 1_000_000


def choose_format(accept: str, parameters: EmbedParameters) -> Format:
    """The format that an `Accept` header asks for. Raises `Invalid` if it cannot hold the answer."""
    chosen: Format = next((name for name, kind in MEDIA_TYPES.items() if kind in accept and name != "json"), "json")
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
