"""Where pictures come from: files, folders, lists, tar shards and tables, each read as it is needed.

Imports `model.images` and its neighbours in `jobs`, but no sink.
"""
