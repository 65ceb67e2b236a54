"""Packlight's load test: open-loop image traffic over HTTP, and what both ends say about it.

It speaks only HTTP: outside `bench/` it imports neither `model` nor `service`. `python -m loadtest --help`.
"""

SCHEMA = "packlight.loadtest/1"
