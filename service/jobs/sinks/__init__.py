"""Rows into files, as they come: each kind of file is there whole or not at all, and holds no more rows than a part."""
