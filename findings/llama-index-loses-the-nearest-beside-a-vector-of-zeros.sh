#!/usr/bin/env bash
# LlamaIndex: one vector of zeros in the default store makes a search lose its best match.
#
# Versions: llama-index-core 0.14.25, numpy 2.4.6. Seen on 2026-11-30.
# Behaviour: SimpleVectorStore divides by the lengths of both vectors, so that the similarity of a vector of zeros is NaN.
#   It keeps the best k in a heap, where no comparison with NaN is true: the heap is out of order from then on, and what it
#   gives up as the smallest may be the largest. What is lost depends on the order in which the vectors were added.
# Output seen (the nearest to [1, 0] of 0.98, 0.6 and zeros, added in this order; k is 1):
#   without zeros: [('close', 0.98)]
#   zeros behind the closest: [('far', 0.6)]
#   zeros first: [('close', 0.98)]
# Why it matters: a store of thousands of pictures with one failed or blank embedding, kept as zeros, returns wrong
#   neighbours, with a warning of NumPy's about a division at most. Never store zeros in place of a vector.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-core==0.14.25 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import sys

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery

VECTORS = {"close": [0.98, 0.199], "zeros": [0.0, 0.0], "far": [0.6, 0.8]}


def nearest(*names: str) -> list[tuple[str, float]]:
    store = SimpleVectorStore()
    store.add([TextNode(id_=name, text=name, embedding=VECTORS[name]) for name in names])
    found = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1))
    return [(name, round(float(score), 2)) for name, score in zip(found.ids, found.similarities)]


found = {
    "without zeros": nearest("close", "far"),
    "zeros behind the closest": nearest("close", "zeros", "far"),
    "zeros first": nearest("zeros", "close", "far"),
}
for name, rows in found.items():
    print(f"{name}: {rows}")
as_stated = list(found.values()) == [[("close", 0.98)], [("far", 0.6)], [("close", 0.98)]]
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
