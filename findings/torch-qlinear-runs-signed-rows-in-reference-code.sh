#!/usr/bin/env bash
# PyTorch: onednn.qlinear_pointwise takes int8 rows, and runs them a thousand times slower than uint8 rows.
#
# Versions: torch 2.13.0 (CPU), on a CPU with AVX-512 VNNI. Seen on 2026-11-30.
# Behaviour: `onednn.qlinear_prepack` lays an int8 weight out for rows of uint8, whatever rows will come.
#   `onednn.qlinear_pointwise` takes rows of int8 too, gives the right sums for them, and says nothing. For such rows
#   oneDNN has no kernel that reads this layout, so it falls back to its reference code: ONEDNN_VERBOSE=1 names
#   `ref_int8:any` in place of `brg_matmul:avx512_core_vnni`. An x_shape for the packing does not change that.
# Output seen (64 x 768 by 768 x 768, one thread, processor time of a call, the best of three):
#   packed for any rows:
#     uint8 rows: 0.2 ms, right: True
#     int8 rows: 800.3 ms, right: True, 3924 times as long
# Why it matters: rows that are quantised around zero, one scale a row, are int8 by nature, and so keep an embedding
#   independent of its batch. Add 128 to them, view them as uint8, and take 128 times the sum of each channel's weights
#   off again in the bias: the same sums at full speed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import sys
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
rows, into, out = 64, 768, 768
weight = torch.randint(-127, 128, (out, into), dtype=torch.int8)
small = torch.randint(0, 128, (rows, into), dtype=torch.uint8)  # the same numbers in both dtypes
right = small.float() @ weight.float().T
ones, zeros = torch.ones(out), torch.zeros(out, dtype=torch.int32)


def sums(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    return torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def best_s(x: torch.Tensor, packed: torch.Tensor) -> float:
    times = []
    for _ in range(3):
        began_s = time.thread_time()
        sums(x, packed)
        times.append(time.thread_time() - began_s)
    return min(times)


as_stated = True
for shape in (None, [rows, into]):
    packed = torch.ops.onednn.qlinear_prepack(weight, shape)
    seconds = {x.dtype: best_s(x, packed) for x in (small, small.view(torch.int8))}
    exact = {x.dtype: torch.equal(sums(x, packed), right) for x in (small, small.view(torch.int8))}
    ratio = seconds[torch.int8] / seconds[torch.uint8]
    print(f"packed for {shape or 'any rows'}:")
    print(f"  uint8 rows: {seconds[torch.uint8] * 1000:.1f} ms, right: {exact[torch.uint8]}")
    print(f"  int8 rows: {seconds[torch.int8] * 1000:.1f} ms, right: {exact[torch.int8]}, {ratio:.0f} times as long")
    as_stated &= ratio > 20 and all(exact.values())
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
