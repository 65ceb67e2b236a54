"""C-RADIO: its encoder, how its tensors are named, and how its config.json is read.

Imports `parts`, `kernels` and `pack`.
"""
