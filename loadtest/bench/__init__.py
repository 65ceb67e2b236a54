"""Benchmarks of the insides, run by hand. They may import `model` and `service`, and assert nothing."""
