"""Packlight's load test: open-loop image traffic over HTTP, and what both ends say about it.

It speaks only HTTP: outside `bench/` and `simulate/` it imports neither `model` nor `service`. See `python -m loadtest
--help`.
"""

SCHEMA = "packlight.loadtest/1"
