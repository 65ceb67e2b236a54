"""What the hardware computes: attention, linear layers and positions, one backend a device, chosen once.

Imports `pack` and `errors`, and knows no encoder.
"""
