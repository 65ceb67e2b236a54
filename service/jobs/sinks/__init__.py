"""Kinds of files that rows are written to as they come. Each appears whole or not at all.

Imports its neighbours in `jobs`, but no source.
"""
