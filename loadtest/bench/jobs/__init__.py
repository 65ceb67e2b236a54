"""The offline job, measured: the benchmark, an emulated accelerator, and pictures by the thousand.

May import `decoding`.
"""
