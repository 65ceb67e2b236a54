"""One module per family of vision encoders; `parts` holds what families share.

Imports `kernels`, `sizing`, `pack` and `errors`.
"""
