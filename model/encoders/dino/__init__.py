"""DINOv2, with and without registers, and DINOv3, which learnt from images alone: one encoder, a module a family.

Imports `parts`, `kernels` and `pack`.
"""
