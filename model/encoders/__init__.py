"""The families of vision encoders, one module each; `parts` holds what they share.

Imports `kernels`, `sizing`, `pack` and `errors`.
"""
