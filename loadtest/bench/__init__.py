"""Benchmarks of the insides, run by hand. They may import `model` and `service`; nothing is asserted by them."""
