"""The name of a model in; its configuration and its weights out. `tiny` is the bundled model.

Imports `encoders`, and touches no device.
"""
