#!/usr/bin/env bash
# ONNX Runtime: Resize with antialias=1 makes every negative number of an int8 tensor zero, and wraps what is over 127.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2 (its reference evaluator), numpy 2.4.6. Seen on 2026-11-30.
# Behaviour: ONNX allows int8 for Resize (operator Resize, opset 18 and later, T1 is all tensor types), and so does ONNX
#   Runtime on the CPU. With antialias=1 its kernel holds eight bits for a number from 0 to 255: what is below zero becomes 0
#   on the way, and results of cubic that overshoot 127 come out negative. Without antialias, and in uint8, int32 and float32,
#   the results are right up to rounding. Nothing is logged.
# Output seen (8 columns, 4 of -128 and 4 of 127, resized to 5; the reference evaluator of ONNX behind the semicolon):
#   int8, linear, antialias=0: [-128, -128, 0, 127, 127]; reference [-128, -128, 0, 127, 127]
#   int8, linear, antialias=1: [0, 0, 0, 127, 127]; reference [-128, -128, -1, 127, 127]
#   int8, cubic, antialias=1: [0, 0, 0, -117, 127]; reference [-128, -128, 0, 127, 127]
#   int32, linear, antialias=1: [-128, -128, 0, 127, 127]; reference [-128, -128, -1, 127, 127]
# Why it matters: graphs that hold preprocessing or tables of positions resize with antialias, as training did, and quantised
#   ones hold int8. Half of such a picture or table is then zero, and the embedding is silently another. Resize in uint8 or
#   float32, and quantise behind it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

TYPES = {"int8": TensorProto.INT8, "int32": TensorProto.INT32}
ROW = [-128] * 4 + [127] * 4


def resized(dtype: str, mode: str, antialias: int) -> tuple[list[int], list[int]]:
    """A row of 8 columns resized to 5: by ONNX Runtime, and by ONNX's reference evaluator."""
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode=mode, antialias=antialias, cubic_coeff_a=-0.5
    )
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, 8, 5])
    shapes = [
        helper.make_tensor_value_info(name, TYPES[dtype], [1, 1, 8, columns]) for name, columns in (("x", 8), ("y", 5))
    ]
    graph = helper.make_graph([node], "resize", shapes[:1], shapes[1:], [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    feed = {"x": np.tile(np.array(ROW, dtype), (1, 1, 8, 1))}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (by_runtime,), (by_reference,) = session.run(None, feed), ReferenceEvaluator(model).run(None, feed)
    return by_runtime[0, 0, 0].tolist(), by_reference[0, 0, 0].tolist()


def near(found: list[int], stated: list[int]) -> bool:
    return all(abs(one - other) <= 1 for one, other in zip(found, stated, strict=True))


RIGHT = [-128, -128, 0, 127, 127]
stated = {
    ("int8", "linear", 0): RIGHT,
    ("int8", "linear", 1): [0, 0, 0, 127, 127],
    ("int8", "cubic", 1): [0, 0, 0, -117, 127],
    ("int32", "linear", 1): RIGHT,
}
as_stated = True
for (dtype, mode, antialias), expected in stated.items():
    found, reference = resized(dtype, mode, antialias)
    print(f"{dtype}, {mode}, antialias={antialias}: {found}; reference {reference}")
    as_stated &= near(found, expected) and near(reference, RIGHT)
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
