"""Packs in, float32 arrays out. The only room that touches a device.

May import every other room of `model`.
"""
