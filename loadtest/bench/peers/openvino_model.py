"""A checkpoint in OpenVINO's form. Runs in an environment of its own.

As a program it takes the arguments of `exported`, so that the workers of a server find the file there.
"""

import sys
from pathlib import Path

import numpy as np
import openvino as ov  # type: ignore[import-not-found, unused-ignore]

from loadtest.bench.peers.requests import NAMES, Inputs
from loadtest.bench.peers.tower import PooledTower

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""Values of `INFERENCE_PRECISION_HINT`."""

# A tenth of NNCF's 300: they are noise, and one is like another.
_CALIBRATION_IMAGES = 32
_CALIBRATION_GRIDS = ((16, 16), (12, 21), (8, 8), (24, 24))


def exported(folder: Path, exports: Path, dtype: str) -> Path:
    """The file, made once in the folder `exports`. dtype: `int8` is quantised; compiling decides about others."""
    plain, quantised = exports / "openvino.xml", exports / "openvino-int8.xml"
    if not plain.exists():
        tower = PooledTower(folder)
        model = ov.convert_model(tower, example_input=tower.example())
        # Converted from a module it has no names of its own.
        for port, name in zip(model.inputs, NAMES, strict=True):
            port.get_tensor().set_names({name})
        ov.save_model(model, plain, compress_to_fp16=False)
    if dtype == "int8" and not quantised.exists():
        _quantise(plain, quantised)
    return quantised if dtype == "int8" else plain


def _quantise(plain: Path, quantised: Path) -> None:
    import nncf  # type: ignore[import-not-found, unused-ignore]

    model = ov.Core().read_model(plain)
    data = nncf.Dataset([_noise(number) for number in range(_CALIBRATION_IMAGES)])
    small = nncf.quantize(
        model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=_CALIBRATION_IMAGES,
        preset=nncf.QuantizationPreset.MIXED,
    )  # fmt: skip
    ov.save_model(small, quantised, compress_to_fp16=False)


def _noise(number: int) -> Inputs:
    """One image of noise, as those that are measured but none of them, with a little padding."""
    random = np.random.default_rng(1000 + number)
    h, w = _CALIBRATION_GRIDS[number % len(_CALIBRATION_GRIDS)]
    length = -(-h * w // 64) * 64
    values = np.zeros((1, length, 768), np.float32)
    values[0, : h * w] = random.integers(0, 256, (h * w, 768)) / 127.5 - 1
    mask = (np.arange(length)[None, :] < h * w).astype(np.int64)
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": np.array([[h, w]], np.int64)}


if __name__ == "__main__":
    exported(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
