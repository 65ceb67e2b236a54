"""timm's NaFlexVit: its encoder, and how its config.json is read.

Imports `parts`, `kernels`, `sizing` and `pack`.
"""
