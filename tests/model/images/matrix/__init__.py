"""Every kind of picture that a format can hold: each is decoded to what its specification demands, or refused by name.

A module `<format>_cells.py` draws the cells of one format in its function `cells()`. `test_matrix.py` decodes them, and
`table.py` writes them into `docs/images.md`.
"""
