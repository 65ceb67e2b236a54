"""What the families of encoders share: the interface, blocks, tensor names, config fields, preprocessing.

Imports no family.
"""
