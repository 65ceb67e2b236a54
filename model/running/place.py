"""What both towers need of a device: their weights there, and their output back."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.kernels.linear import Linear

Module = TypeVar("Module", bound=nn.Module)


def placed(module: Module, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> Module:
    """The module with these weights, on the device in the dtype. It was made on the meta device."""
    module.load_state_dict(weights, assign=True)
    module.to(device, dtype).eval()
    for layer in module.modules():
        if isinstance(layer, Linear):
            layer.prepare()
    return module


def threads_of(device: torch.device) -> int:
    """How many shares of a pack run side by side."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def to_host(x: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = x.float().cpu().numpy()
    return array
