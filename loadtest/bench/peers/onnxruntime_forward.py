"""ONNX Runtime as a contender of `python -m loadtest.bench forward`. Runs in an environment of its own.

Its documentation exports with `torch.onnx.export`, fuses with its tool for transformers, leaves the number of threads
to the session, and recommends dynamic quantisation for transformers: 8-bit weights a channel, and activations with one
scale a call. It has no bfloat16 on an x86 CPU.

| way | calls |
|---|---|
| batch | one call with all images, padded to the cap |
| single | a call for each image at its own length, without padding |
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-not-found, unused-ignore]
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.transformers import optimizer  # type: ignore[import-not-found, unused-ignore]

from loadtest.bench.forwards.rounds import answer_rounds
from loadtest.bench.peers.requests import NAMES, computed_rows, load_inputs, unpadded
from loadtest.bench.peers.tower import PooledTower


def main() -> None:
    job = json.loads(sys.argv[1])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if job["threads"]:
        options.intra_op_num_threads = job["threads"]
    path = _exported(Path(job["model"]), Path(job["exports"]), job["dtype"])
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = load_inputs(job["inputs"])
    requests = unpadded(inputs) if job["way"] == "single" else [inputs]

    def forward() -> NDArray[np.float32]:
        return np.concatenate([session.run(None, each)[0] for each in requests])

    answer_rounds(forward, job["clock"], job["answer"], computed_rows=lambda: computed_rows(requests))


def _exported(folder: Path, exports: Path, dtype: str) -> Path:
    """The checkpoint as an ONNX model, made once."""
    plain, quantised = exports / "onnxruntime.onnx", exports / "onnxruntime-int8.onnx"
    if not plain.exists():
        _export(folder, plain)
    if dtype == "int8" and not quantised.exists():
        # Without `quant_pre_process`, which is for models that the tool has not fused, and fails on those that it has.
        quantization.quantize_dynamic(plain, quantised, weight_type=quantization.QuantType.QInt8, per_channel=True)
    return quantised if dtype == "int8" else plain


def _export(folder: Path, plain: Path) -> None:
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"  # ONNX has no operator for its checks of sizes.
    tower = PooledTower(folder)
    config = tower.tower.config
    raw = plain.with_name("onnxruntime-raw.onnx")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {NAMES[0]: {0: batch, 1: length}, NAMES[1]: {0: batch, 1: length}, NAMES[2]: {0: batch}}
    torch.onnx.export(
        tower, tower.example(), raw, input_names=NAMES, output_names=["pooled"], dynamic_shapes=shapes, dynamo=True
    )
    fused = optimizer.optimize_model(
        str(raw), model_type="vit", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    fused.save_model_to_file(str(plain))


if __name__ == "__main__":
    main()
