"""Results as JSON and back: the versioned document that `--json` writes and `compare` reads.

It holds every figure of a report, and a row for each request. NaN and infinity become null.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest import SCHEMA
from loadtest.errors import UsageError
from loadtest.runs.compare import Comparison, Judged, Side, cut
from loadtest.runs.run import RunResult, notes
from loadtest.runs.summary import Frame
from loadtest.runs.sweep import SweepResult
from loadtest.sending.records import Records

_BLOCKS = 20


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(_plain(document), allow_nan=False, separators=(",", ":")) + "\n")


def run_document(result: RunResult) -> dict[str, Any]:
    server = asdict(result.server) if result.server else None
    if server is not None and result.server is not None:
        server |= {"padding_waste": result.server.padding_waste, "wastes": result.server.wastes}
    return {
        "schema": SCHEMA,
        "kind": "run",
        "url": result.url,
        "form": result.form,
        "started_at": result.started_at,
        "timing": asdict(result.timing),
        "corpus": corpus_facts(result),
        "server_info": result.info,
        "frame": asdict(result.frame),
        "notes": notes(result),
        "summary": asdict(result.summary),
        "server": server,
        "checks": [{**asdict(check), "agrees": check.agrees} for check in result.checks],
        "interrupted_at_s": result.interrupted_at_s,
        "requests": result.records.to_json(),
    }


def corpus_facts(result: RunResult) -> dict[str, Any]:
    corpus = result.corpus
    return {
        "name": corpus.name,
        "fingerprint": corpus.fingerprint(),
        "classes": corpus.classes,
        "requests": len(corpus.requests),
        "images": corpus.images,
        "picture_bytes": corpus.picture_bytes,
        "megapixels": round(corpus.megapixels, 3),
        "request_bytes": [sum(len(picture.data) for picture in request.pictures) for request in corpus.requests],
    }


def sweep_document(result: SweepResult) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "sweep",
        "url": result.url,
        "started_at": result.last.started_at,
        "corpus": corpus_facts(result.last),
        "server_info": result.last.info,
        "knee": result.knee,
        "ended": result.ended,
        "steps": [asdict(step) for step in result.steps],
    }


def compare_document(result: Comparison, judged: list[Judged]) -> dict[str, Any]:
    sides = zip(("a", "b"), (result.base, result.other), result.summaries, strict=True)
    return {
        "schema": SCHEMA,
        "kind": "compare",
        "same_requests": result.same_requests,
        "confidence": result.confidence,
        "ratios": {name: asdict(interval) for name, interval in result.ratios.items()},
        "gates": [{"gate": each.gate.text, "outcome": each.outcome, "said": each.said} for each in judged],
        **{
            name: {"label": side.label, "summary": asdict(summary), "requests": side.records.to_json()}
            for name, side, summary in sides
        },
    }


def read_side(path: Path) -> Side:
    """A run written by `run --json`, as one side of a comparison. Raises `UsageError` for any other file."""
    document = _read(path)
    try:
        return _side(path, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: a result that lacks something, or holds something else: {error!r}") from error


def _side(path: Path, document: dict[str, Any]) -> Side:
    frame = Frame(**{**document["frame"], "classes": tuple(document["frame"]["classes"])})
    round_s = (frame.window_end_s - frame.window_start_s) / _BLOCKS
    rounds = cut(Records.from_json(document["requests"]), start_s=frame.window_start_s, round_s=round_s, rounds=_BLOCKS)
    measured = Frame(frame.concurrency, 0.0, round_s * _BLOCKS, frame.slo_ms, frame.classes)
    requests_id = json.dumps([document["corpus"]["fingerprint"], document["timing"]], sort_keys=True)
    return Side(str(path), measured, requests_id, rounds, round_s, document["corpus"]["request_bytes"])


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("kind") != "run":
        raise UsageError(f'{path}: not a result of `run --json` (schema "{SCHEMA}")')
    return document


def _plain(value: Any) -> Any:
    """The value in JSON's terms: NaN and infinity become null, tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
