"""Trains and judges packlight-tiny. Nothing imports this package, and no container image includes it.

Imports `model`.
"""
