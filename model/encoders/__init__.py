"""The families of encoders: a module each, or a room for several that are one kind. `parts` holds what they share.

Imports `kernels`, `sizing`, `pack` and `errors`.
"""
