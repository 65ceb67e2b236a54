"""Packlight on Ray, with a real cluster on this machine: `make test-ray`."""
