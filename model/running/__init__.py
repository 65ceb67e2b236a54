"""Packs in, float32 arrays out: the one place that touches a device.

May import every other room of `model`.
"""
