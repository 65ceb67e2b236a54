"""Kinds of files that rows are written to as they come. Each appears whole or not at all.

Imports what stands in `jobs` beside it, but no source.
"""
