"""Reads image files: from bytes to a header, RGB pixels or uint8 patch rows, without torch.

Imports `sizing` and `errors`.
"""
