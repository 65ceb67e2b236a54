#!/usr/bin/env bash
# sentence-transformers: semantic_search_faiss of uint8 finds the same documents for every query, and less than bits do.
#
# Versions: sentence-transformers 6.2.0, faiss-cpu 1.15.1, usearch 2.26.6, torch 2.13.0, transformers 5.24.0, numpy 2.4.6.
#   Seen on 2026-11-30.
# Behaviour: quantize_embeddings(precision="uint8") moves each dimension so that its smallest number is 0 and its largest 255.
#   semantic_search_faiss takes uint8 as a precision of the corpus (its docstring and the page on embedding quantization name
#   it) and ranks by the inner product of these integers. Zero is about 128 there, so each product holds 128 times the sum of
#   the document's integers, which outweighs all that depends on the query. rescore=True only sorts what was found so. int8,
#   which usearch takes, and bits are centred.
# Output seen (2,000 documents of 100 scenes, 256 dimensions; 100 queries, a scene each; of the 10 found for each query):
#   faiss float32: 100% of the right scene, 999 documents
#   faiss uint8: 19% of the right scene, 191 documents
#   faiss uint8, rescored: 34% of the right scene, 336 documents
#   faiss ubinary: 86% of the right scene, 948 documents
#   usearch int8: 100% of the right scene, 996 documents
# Why it matters: who quarters a store of embeddings to uint8 with these two functions loses most neighbours, without a
#   warning, though as many bytes of int8 keep them. Use int8 with usearch, or integers of one scale without an offset.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet sentence-transformers==6.2.0 faiss-cpu==1.15.1 usearch==2.26.6 torch==2.13.0 \
    transformers==5.24.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import sys

import numpy as np
from sentence_transformers.util.quantization import (
    quantize_embeddings,
    semantic_search_faiss,
    semantic_search_usearch,
)

random = np.random.default_rng(0)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


scenes = random.standard_normal((100, 256))
kinds = np.arange(2000) % 100
corpus = unit(scenes[kinds] + 1.5 * random.standard_normal((2000, 256)))
queries = unit(scenes + 1.5 * random.standard_normal((100, 256)))


def found(search, precision: str, rescore: bool = False) -> tuple[float, int]:
    """How many of the 10 that a query finds show its scene, and how many documents are found by any query."""
    stored = quantize_embeddings(corpus, precision, calibration_embeddings=corpus)
    options = {} if precision == "float32" else {"calibration_embeddings": corpus}
    results = search(
        queries, corpus_embeddings=stored, corpus_precision=precision, top_k=10, rescore=rescore, **options
    )[0]
    ids = np.array([[row["corpus_id"] for row in result] for result in results])
    return float((kinds[ids] == np.arange(100)[:, None]).mean()), len(np.unique(ids))


measured = {
    "faiss float32": found(semantic_search_faiss, "float32"),
    "faiss uint8": found(semantic_search_faiss, "uint8"),
    "faiss uint8, rescored": found(semantic_search_faiss, "uint8", rescore=True),
    "faiss ubinary": found(semantic_search_faiss, "ubinary"),
    "usearch int8": found(semantic_search_usearch, "int8"),
}
for name, (share, documents) in measured.items():
    print(f"{name}: {share:.0%} of the right scene, {documents} documents")
worst = max(measured[name][0] for name in ("faiss uint8", "faiss uint8, rescored"))
best = min(measured[name][0] for name in ("faiss float32", "faiss ubinary", "usearch int8"))
as_stated = worst < 0.75 * best
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
