#!/usr/bin/env bash
# PyTorch: F.normalize and F.cosine_similarity of float16 zeros are NaN, though their eps is there to prevent it.
#
# Versions: torch 2.13.0 (CPU), numpy 2.3.5. Seen on 2026-11-30.
# Behaviour: F.normalize is v / max(|v|, eps) with eps 1e-12, and F.cosine_similarity bounds each length by eps 1e-8 (both by
#   their documentation). The bound is taken in the type of the tensor. Neither number exists in float16, whose smallest is
#   6e-8: both become 0, and 0 / 0 is NaN. The other way round, a length over 65,504 is infinite, and the vector becomes
#   zeros. float32 and bfloat16 are right.
# Output seen (the first number of each result):
#   float32: normalize of zeros 0.0; cosine to zeros 0.0; normalize of 768 times 3,000 0.036
#   bfloat16: normalize of zeros 0.0; cosine to zeros 0.0; normalize of 768 times 3,000 0.036
#   float16: normalize of zeros nan; cosine to zeros nan; normalize of 768 times 3,000 0.0
# Why it matters: encoders run in float16, and pool before they normalise. A text whose tokens are all masked, or a segment of
#   zeros, is a vector of zeros in float32 and of NaN in float16, and topk takes NaN for the nearest. Features with a length
#   over 65,504 end as zeros in a store. Normalise in float32, and refuse what is not finite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import sys

import torch
from torch.nn import functional as F


def first_numbers(dtype: torch.dtype) -> list[str]:
    zeros, long = torch.zeros(1, 4, dtype=dtype), torch.full((1, 768), 3000.0, dtype=dtype)
    results = (F.normalize(zeros), F.cosine_similarity(zeros, zeros + 1), F.normalize(long))
    return [str(round(float(result.flatten()[0]), 3)) for result in results]


found = {dtype: first_numbers(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
for dtype, (normal, cosine, long) in found.items():
    name = str(dtype).removeprefix("torch.")
    print(f"{name}: normalize of zeros {normal}; cosine to zeros {cosine}; normalize of 768 times 3,000 {long}")
right = ["0.0", "0.0", "0.036"]
stated = {torch.float32: right, torch.bfloat16: right, torch.float16: ["nan", "nan", "0.0"]}
sys.exit(0 if found == stated else "the behaviour has changed")
PYTHON
