"""The page of `packlight embed --html`: what it says, and how its parts become one file.

The files of the server's own page draw the grids and give it its style.
"""
