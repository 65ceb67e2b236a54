"""Packlight on Ray Serve: replicas that each are a whole server, and the bounds in front of them. See docs/ray.md.

Imports `service` and Ray.
"""
