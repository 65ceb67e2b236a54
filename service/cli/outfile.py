"""Writes the embeddings of files to disk, in the format that the name of the output file asks for."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from service.cli.names import utf8_name
from service.cli.offline import Embedded
from service.requests.results import describe_plan, describe_segments, grid_tensors

SUFFIXES = (".npy", ".safetensors", ".jsonl")


def write(path: Path, results: Sequence[Embedded]) -> None:
    """Writes one vector for each file that has one, in order. Raises `OSError`.

    `.npy`: float32 `[B, E]`, without the files' names. `.safetensors`: the same as `embeddings`, with `tokens` int32
    `[B]`, the tensors of `results.grid_tensors`, and the names as a JSON list under `files` in the metadata. `.jsonl`:
    an object a line.
    """
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(as_json(result))}\n" for result in results), encoding="utf-8")
        return
    embeddings = np.stack([result.embedding for result in results]) if results else np.zeros((0, 0), np.float32)
    if path.suffix == ".npy":
        with path.open("wb") as file:
            np.save(file, embeddings)
        return
    tensors = grid_tensors([result.plan for result in results]) | {
        "embeddings": embeddings,
        "tokens": np.array([result.plan.tokens for result in results], np.int32),
    }
    # `save_file` would give the file to its owner alone, and raise no OSError.
    path.write_bytes(save(tensors, metadata={"files": json.dumps([utf8_name(result.path) for result in results])}))


def as_json(result: Embedded) -> dict[str, object]:
    """The fields of an HTTP answer, and the file they belong to."""
    plan = result.plan
    segments = {"segments": describe_segments(plan)} if len(plan.segments) > 1 else {}
    repaired = {"repaired": True} if result.repaired else {}
    item = {"file": utf8_name(result.path), "embedding": result.embedding.tolist()}
    return segments | item | describe_plan(plan) | repaired
