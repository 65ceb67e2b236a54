"""Servers that the benchmarks start, ours and others', and what their processes use of the machine."""
