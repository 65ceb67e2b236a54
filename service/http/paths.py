"""The paths of the server: where each dialect is spoken, which paths embed, and which tell how the server is doing."""

from service.http.dialects.cohere import COHERE
from service.http.dialects.dialect import Dialect
from service.http.dialects.immich import IMMICH
from service.http.dialects.jina import JINA
from service.http.dialects.openai import OPENAI
from service.http.dialects.pooling import POOLING
from service.http.dialects.rerank import RERANK
from service.http.dialects.scores import SCORES
from service.http.dialects.voyage import VOYAGE
from service.http.dialects.weaviate import WEAVIATE

# Where several share a path, the last is meant if no other recognises a body.
DIALECTS: tuple[Dialect, ...] = (JINA, OPENAI, POOLING, SCORES, RERANK, COHERE, VOYAGE, WEAVIATE, IMMICH)
DIALECTS_BY_PATH = {path: dialect for dialect in DIALECTS for path in dialect.paths}
EMBEDDING_PATHS = ("/embed", "/classify", *DIALECTS_BY_PATH)
HEALTH_PATHS = ("/livez", "/readyz", "/health", "/ping", "/.well-known/live", "/.well-known/ready")
FIGURES_PATHS = ("/metrics", "/stats")
# Those that metrics and the log name.
PATHS = (
    *EMBEDDING_PATHS, *HEALTH_PATHS, *FIGURES_PATHS, "/", "/pages", "/docs", "/openapi.json", "/plan", "/tokenize",
    "/detokenize", "/v1/models", "/models", "/meta", "/version", "/info",
)  # fmt: skip
