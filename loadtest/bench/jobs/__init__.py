"""The offline job, measured: the benchmark, and pictures by the thousand.

May import `accelerator` and `decoding`.
"""
