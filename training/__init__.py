"""What made and judged packlight-tiny. Nothing imports it, and no image carries it.

Imports `model`.
"""
