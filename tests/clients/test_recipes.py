"""The programs of docs/clients/ against a real server, with the packages that `tests/clients/install.sh` installs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.loading import load_runner
from service.settings.settings import Settings
from tests.clients.recipes import NAMES, making_pictures, recipe
from tests.service.running import PATIENCE_S, Running, serving, until
from tests.text_models import save_whole

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "build/clients"
PYTHON = CLIENTS / "venv/bin/python"
PROGRAMS = Path(__file__).parent / "programs"
PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "page.png", "rocket.jpg")
WORDS = "a red bicycle"

# By the name of a page: the vectors of all pictures, as the client returns them or as the store has them.
VECTORS = {
    "cohere": "seen = vectors",
    "faiss": "seen = index.reconstruct_n(0, 6)",
    "haystack": "seen = [document.embedding for document in store.filter_documents()]",
    "lancedb": "seen = table.to_arrow()['vector'].to_pylist()",
    "langchain": "seen = [document['vector'] for document in store.store.values()]",
    "llamaindex": "seen = [index.image_vector_store.get(node.node_id) for node in nodes]",
    "numpy": "seen = vectors",
    "openai": "seen = vectors",
    "pgvector": "seen = vectors",
    "qdrant": "seen = vectors",
    "voyage": "seen = vectors",
    "weaviate": "seen = vectors",
}
PLAN = """
with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    register_vector(database)
    # Six rows are read faster without an index.
    database.execute("SET enable_seqscan = off")
    seen = [line for line, in database.execute("EXPLAIN " + NEAREST, {"query": HalfVector(vectors[0])})]
"""
# The vector of `WORDS`, and how many pictures they find.
SEARCHES = {
    "haystack": """
from haystack.components.embedders import OpenAITextEmbedder
from haystack.utils import Secret
model = httpx.get(url + "/info").json()["model"]["name"]
embedder = OpenAITextEmbedder(api_base_url=url + "/v1", api_key=Secret.from_token("none"), model=model)
vector = embedder.run("a red bicycle")["embedding"]
seen = vector, len(InMemoryEmbeddingRetriever(store, top_k=3).run(vector)["documents"])
""",
    "langchain": """
seen = embeddings.embed_query("a red bicycle"), len(store.similarity_search("a red bicycle", k=3))
""",
    "llamaindex": """
found = index.as_retriever(image_similarity_top_k=3).text_to_image_retrieve("a red bicycle")
seen = embedding.get_query_embedding("a red bicycle"), len(found)
""",
    "openai": """
answer = client.embeddings.create(model=model, input=["a red bicycle"])
seen = answer.data[0].embedding, 3
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of docs/clients/index.md, made by its commands."""
    made = tmp_path_factory.mktemp("recipes")
    # A bare machine has no `python`; the page is for an active environment, here the one of these tests.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    subprocess.run(["bash", "-euc", making_pictures()], cwd=made, env=environment, check=True, timeout=PATIENCE_S)
    assert sorted(path.name for path in (made / "pictures").iterdir()) == list(PICTURES)
    return made


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty PostgreSQL with pgvector."""
    environment = os.environ | {"NODE_PATH": str(CLIENTS / "node_modules")}
    command = ["node", str(PROGRAMS / "postgres.cjs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "PostgreSQL did not start"
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        process.kill()


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model with a text tower. Its weights are random, so what it finds means nothing."""
    folder = tmp_path_factory.mktemp("model")
    save_whole(folder, "siglip2")
    with serving(load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))) as running:
        yield running
        until(running.is_empty)


def ran(name: str, folder: Path, server: Running, statements: str = "", *, database: str = "") -> tuple[str, Any]:
    """What the program of a page prints, and what statements over its names saw; those are for Python alone."""
    shown = recipe(name)
    (folder / shown.file).write_text(shown.program, encoding="utf-8")
    command = shown.run
    seen = folder / "seen.json"
    if shown.language == "python":
        assert PYTHON.exists(), "run tests/clients/install.sh, which installs the packages"
        command = [str(PYTHON), str(PROGRAMS / "run_recipe.py"), shown.file, statements, str(seen), *command[2:]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "EMBED_URL": f"http://127.0.0.1:{server.port}",
        "DATABASE_URL": database,
        "GOCACHE": str(CLIENTS / "go"),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(seen.read_text()) if shown.language == "python" else None


def embedded(server: Running, folder: Path) -> NDArray[np.float32]:
    """The vectors of `/embed`, in the order of the names."""
    answers = [server.embed((folder / "pictures" / name).read_bytes(), max_tokens=256).json() for name in PICTURES]
    return np.array([answer["data"][0]["embedding"] for answer in answers], np.float32)


def test_every_page_in_python_is_asked_for_its_vectors() -> None:
    assert set(VECTORS) == {name for name in NAMES if recipe(name).language == "python"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_finds_the_picture_and_prints_what_its_page_shows(
    name: str, server: Running, folder: Path, request: pytest.FixtureRequest
) -> None:
    database = request.getfixturevalue("database") if name == "pgvector" else ""
    output, vectors = ran(name, folder, server, VECTORS.get(name, ""), database=database)
    assert output.splitlines()[0].split()[1] == "chelsea.png"
    assert output == recipe(name).output
    if name in VECTORS:
        assert np.array_equal(np.array(vectors, np.float32), embedded(server, folder))


def test_the_query_of_pgvectors_page_uses_the_index(server: Running, folder: Path, database: str) -> None:
    _, plan = ran("pgvector", folder, server, PLAN, database=database)
    assert "Index Scan using pictures_embedding_idx" in "".join(plan)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_recipe_searches_by_words(name: str, text_server: Running, folder: Path) -> None:
    _, (vector, found) = ran(name, folder, text_server, SEARCHES[name])
    (item,) = text_server.embed_json(texts=[WORDS]).json()["data"]
    assert np.array_equal(np.array(vector, np.float32), np.array(item["embedding"], np.float32))
    assert found == 3
