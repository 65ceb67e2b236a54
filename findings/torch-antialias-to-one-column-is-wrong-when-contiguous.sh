#!/usr/bin/env bash
# PyTorch: F.interpolate(antialias=True) to one column is wrong for a contiguous input when the height changes too.
#
# Versions: torch 2.13.0 (CPU), numpy 2.3.5, pillow 13.0.0. Seen on 2026-11-29.
# Behaviour: a [1, C, H, W] float32 table is resized to [1, C, h, 1], antialias=True, align_corners=False. If h is
#   neither 1 nor H, the result depends on the memory format of the input: a channels_last table gives what Pillow's
#   resize gives, and the same values in a contiguous table are off by about their own size. Two columns are right.
# Output seen (standard normal values; the largest difference from Pillow's antialiased resize):
#   bilinear 16x16 -> 8x2: contiguous 0.000, channels_last 0.000
#   bilinear 16x16 -> 8x1: contiguous 0.747, channels_last 0.000
#   bilinear 16x16 -> 24x1: contiguous 1.232, channels_last 0.000
#   bicubic 16x16 -> 24x1: contiguous 1.279, channels_last 0.000
# Why it matters: NaFlex encoders resize their table of positions to the grid of each image. A tall, narrow image has a
#   grid one patch wide; its positions, and so its embedding, are silently wrong in code that keeps the table contiguous.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5 pillow==13.0.0
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

table = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))


def off(resized: torch.Tensor, size: tuple[int, int], mode: str) -> float:
    """The largest difference from Pillow's antialiased resize, channel by channel in float."""
    worst = 0.0
    for plane, channel in zip(table[0], resized[0], strict=True):
        image = Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling[mode.upper()])
        worst = max(worst, float(np.abs(np.asarray(image) - channel.numpy()).max()))
    return worst


as_stated = True
for mode, size in (("bilinear", (8, 2)), ("bilinear", (8, 1)), ("bilinear", (24, 1)), ("bicubic", (24, 1))):
    differences = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        stored = table.contiguous(memory_format=memory_format)
        resized = interpolate(stored, size=size, mode=mode, antialias=True, align_corners=False)
        differences.append(off(resized, size, mode))
    contiguous, channels_last = differences
    print(f"{mode} 16x16 -> {size[0]}x{size[1]}: contiguous {contiguous:.3f}, channels_last {channels_last:.3f}")
    as_stated &= channels_last < 1e-4 and (contiguous > 0.1) == (size[1] == 1)
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
