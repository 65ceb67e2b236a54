"""Packlight's load test: open-loop image traffic over HTTP, and what both ends say about it.

Talks HTTP only: knows nothing of `model` and imports neither it nor `service`. `python -m loadtest --help`.
"""

SCHEMA = "packlight.loadtest/1"
