"""CLIP: pictures and texts.

Imports `parts`, `kernels` and `pack`.
"""
