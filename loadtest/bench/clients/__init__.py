"""Clients that the benchmarks send with, and figures of the answers. May import `servers`."""
