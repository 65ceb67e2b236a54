"""The paths of the server: where each dialect is spoken, which paths embed, and which tell how the server is doing."""

from difflib import get_close_matches
from functools import lru_cache

from service.http.dialects.cohere import COHERE
from service.http.dialects.dialect import Dialect
from service.http.dialects.immich import IMMICH
from service.http.dialects.jina import JINA
from service.http.dialects.openai import OPENAI
from service.http.dialects.pooling import POOLING
from service.http.dialects.rerank import RERANK, VOYAGE_RERANK
from service.http.dialects.scores import SCORES
from service.http.dialects.voyage import VOYAGE, VOYAGE_TEXTS
from service.http.dialects.weaviate import WEAVIATE

# Where several share a path, the last is meant if no other recognises a body.
DIALECTS: tuple[Dialect, ...] = (
    VOYAGE_TEXTS, JINA, OPENAI, POOLING, SCORES, VOYAGE_RERANK, RERANK, COHERE, VOYAGE, WEAVIATE, IMMICH,
)  # fmt: skip
DIALECTS_BY_PATH = {path: dialect for dialect in DIALECTS for path in dialect.paths}
EMBEDDING_PATHS = ("/embed", "/classify", *DIALECTS_BY_PATH)
HEALTH_PATHS = ("/livez", "/readyz", "/health", "/ping", "/.well-known/live", "/.well-known/ready")
FIGURES_PATHS = ("/metrics", "/stats")
# Those that metrics and the log name.
PATHS = (
    *EMBEDDING_PATHS, *HEALTH_PATHS, *FIGURES_PATHS, "/", "/pages", "/docs", "/openapi.json", "/plan", "/tokenize",
    "/detokenize", "/v1/models", "/models", "/meta", "/version", "/info",
)  # fmt: skip

# A path that is longer than any of these is none of them, and takes long to compare.
_LONGEST = 48
_ALIKE = 0.7


@lru_cache(maxsize=64)
def meant_by(path: str) -> str | None:
    """The path that was probably meant by one that there is not; None if none is like it."""
    bare = path.rstrip("/")
    if len(bare) > _LONGEST:
        return None
    return bare if bare in PATHS else next(iter(get_close_matches(bare, PATHS, 1, _ALIKE)), None)
