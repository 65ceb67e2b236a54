"""From a model's name to its configuration and weights. `tiny` is the bundled model.

Imports `encoders`. Touches no device.
"""
