"""Every setting of Packlight: its name, what it may be, and where it is read from.

Imports what judges a value: `fetching` for hosts, `sizing` for tiles.
"""
