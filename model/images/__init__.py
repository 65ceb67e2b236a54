"""The bytes of an image file in; its header, its RGB pixels or its uint8 patch rows out. No torch.

Imports `sizing` and `errors`.
"""
