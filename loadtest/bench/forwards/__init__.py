"""Forwards without HTTP: packed, padded, recorded, and the bare pipeline. Imports `clients` and `servers`."""
