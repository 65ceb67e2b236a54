"""SigLIP and SigLIP 2: towers of one resolution, NaFlex, and texts.

Imports `parts`, `kernels` and `pack`.
"""
