"""Where pictures come from: files, folders, lists, tar shards and tables, each read as it is needed.

Imports `model.images` and what stands in `jobs` beside it, but no sink.
"""
