"""Forwards without HTTP: packed, padded, dense, bucketed, recorded, and the bare pipeline.

May import `clients` and `servers`.
"""
