"""packlight-tiny: the small NaFlex encoder that comes with the package.

`training/train.py` made its weights, `model.safetensors` beside this file, from pictures that it draws.
`training/evaluate.py` judges them on real pictures.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.siglip.naflex import NaFlexConfig
from model.sizing.geometry import Geometry

NAME = "packlight-tiny"
FOLDER = Path(__file__).parent
CARD = "model/checkpoint/tiny/MODEL_CARD.md"
"""Says what the model is good for and what not. A path from the folder that holds the packages."""

CONFIG = NaFlexConfig(width=256, depth=4, heads=4, mlp_width=768)
PREPROCESSING = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), geometry=Geometry.for_naflex(16, 256), default_max_tokens=256
)

_SEED = 20261120


def seeded_tensors(config: NaFlexConfig = CONFIG) -> dict[str, Tensor]:
    """Untrained weights for an encoder of any shape, float32, under the names of a checkpoint.

    They are the same on every machine, and serve for measuring, for comparing and as a baseline. Matrices are normal
    with standard deviation 1/sqrt(inputs), biases and tables smaller, norms near the identity.
    """
    random = np.random.Generator(np.random.PCG64(_SEED))
    tensors = {}
    for name, shape in config.checkpoint_shapes().items():
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            is_scale = name.endswith("norm.weight") or "layer_norm" in name and name.endswith("weight")
            tensors[name] = torch.from_numpy(0.02 * values + float(is_scale))
        else:
            tensors[name] = torch.from_numpy(values / np.float32(math.sqrt(shape[-1])))
    return tensors
