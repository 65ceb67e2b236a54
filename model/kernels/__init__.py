"""What the hardware computes: attention, linear layers and positions, with one backend per device, chosen once.

`hardware` asks what the machine can do. Imports `pack` and `errors`, and knows no encoder.
"""
