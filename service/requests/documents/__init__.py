"""Documents: texts and images of a request that become one vector, by models that fuse them.

Imports `engine` and the other stages of `requests`, but not the embedder.
"""
