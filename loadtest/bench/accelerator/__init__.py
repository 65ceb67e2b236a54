"""An accelerator that is not there, for benchmarks and tests of everything around it, and the benchmark that it is for.

May import every part of Packlight.
"""
