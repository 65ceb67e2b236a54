"""Writes the embeddings of files and texts to disk, in the format that the name of the output file asks for."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from service.cli.names import utf8_name
from service.cli.offline import Embedded
from service.cli.texts import TextVector
from service.requests.results import describe_plan, describe_segments, grid_tensors

SUFFIXES = (".npy", ".safetensors", ".jsonl")


def write(path: Path, results: Sequence[Embedded], texts: Sequence[TextVector] = ()) -> None:
    """Writes one vector for each file that has one, in order, and then one for each text. Raises `OSError`.

    `.npy`: float32 `[B, E]`, without names. `.safetensors`: the same as `embeddings`, with `tokens` int32 `[B]`, the
    tensors of `results.grid_tensors` for the files, and in the metadata, as JSON lists, the names under `files` and the
    texts, if there are any, under `texts`. `.jsonl`: an object a line.
    """
    if path.suffix == ".jsonl":
        items = [*map(as_json, results), *map(text_as_json, texts)]
        path.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="utf-8")
        return
    vectors = [*(result.embedding for result in results), *(text.embedding for text in texts)]
    embeddings = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    if path.suffix == ".npy":
        with path.open("wb") as file:
            np.save(file, embeddings)
        return
    tensors = grid_tensors([result.plan for result in results]) | {
        "embeddings": embeddings,
        "tokens": np.array([*(result.plan.tokens for result in results), *(text.tokens for text in texts)], np.int32),
    }
    metadata = {"files": json.dumps([utf8_name(result.path) for result in results])}
    if texts:
        metadata["texts"] = json.dumps([text.text for text in texts])
    # `save_file` would give the file to its owner alone, and raise no OSError.
    path.write_bytes(save(tensors, metadata=metadata))


def as_json(result: Embedded) -> dict[str, object]:
    """The fields of an HTTP answer, and the file they belong to."""
    plan = result.plan
    segments = {"segments": describe_segments(plan)} if len(plan.segments) > 1 else {}
    repaired = {"repaired": True} if result.repaired else {}
    item = {"file": utf8_name(result.path), "embedding": result.embedding.tolist()}
    return segments | item | describe_plan(plan) | repaired


def text_as_json(text: TextVector) -> dict[str, object]:
    """The fields of an HTTP answer, and the text they belong to."""
    counts = {"tokens": text.tokens, "truncated": text.truncated}
    return {"text": text.text, "embedding": text.embedding.tolist()} | counts
