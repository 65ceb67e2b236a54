"""OpenVINO as a contender of `python -m loadtest.bench forward`. Runs in an environment of its own.

Its documentation converts a PyTorch model with `openvino.convert_model`, sets a performance hint and not the settings
below it, asks for shapes that are known beforehand (`reshape`), and quantises with NNCF.

| way | hint | calls |
|---|---|---|
| batch | LATENCY | one call with all images, padded to the cap |
| streams | THROUGHPUT | the batch divided among as many calls at once as the compiled model asks for |
| single | THROUGHPUT | a call for each image at its own length, without padding; shapes are dynamic |

| dtype | how |
|---|---|
| float32 | `INFERENCE_PRECISION_HINT=f32`; by default it would be bfloat16 where the hardware has it |
| bfloat16 | `INFERENCE_PRECISION_HINT=bf16` |
| int8 | `nncf.quantize` for transformers, calibrated with images of the same kind; the rest has the default precision |
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-not-found, unused-ignore]
from numpy.typing import NDArray
from openvino import properties

from loadtest.bench.forwards.rounds import Forward, answer_rounds
from loadtest.bench.peers.openvino_model import PRECISIONS, exported
from loadtest.bench.peers.requests import Inputs, computed_rows, divided, load_inputs, unpadded

_HINTS = {"batch": "LATENCY", "streams": "THROUGHPUT", "single": "THROUGHPUT"}


def main() -> None:
    job = json.loads(sys.argv[1])
    core = ov.Core()
    model = core.read_model(exported(Path(job["model"]), Path(job["exports"]), job["dtype"]))
    inputs, way = load_inputs(job["inputs"]), job["way"]
    settings = {"PERFORMANCE_HINT": _HINTS[way]}
    if job["dtype"] in PRECISIONS:
        settings["INFERENCE_PRECISION_HINT"] = PRECISIONS[job["dtype"]]
    if job["threads"]:
        settings["INFERENCE_NUM_THREADS"] = str(job["threads"])
    requests = [inputs]
    if way == "streams":
        wanted = core.compile_model(model, "CPU", settings).get_property(properties.optimal_number_of_infer_requests())
        requests = divided(inputs, int(wanted))
    elif way == "single":
        requests = unpadded(inputs)
    if way != "single":
        model.reshape({name: array.shape for name, array in requests[0].items()})
    forward = _calls(core.compile_model(model, "CPU", settings), requests)
    answer_rounds(forward, job["clock"], job["answer"], computed_rows=lambda: computed_rows(requests))


def _calls(compiled: Any, requests: list[Inputs]) -> Forward:
    if len(requests) == 1:
        return lambda: np.array(compiled(requests[0])[0])
    queue = ov.AsyncInferQueue(compiled)  # As many at once as the compiled model asks for.
    pooled: dict[int, NDArray[np.float32]] = {}

    def keep(request: Any, index: int) -> None:
        pooled[index] = request.get_output_tensor().data.copy()

    queue.set_callback(keep)

    def forward() -> NDArray[np.float32]:
        for index, each in enumerate(requests):
            queue.start_async(each, index)
        queue.wait_all()
        return np.concatenate([pooled[index] for index in range(len(requests))])

    return forward


if __name__ == "__main__":
    main()
