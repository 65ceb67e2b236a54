"""EmbeddingGemma 2: a vision tower whose tokens go into a text encoder, which makes one vector of images and texts.

Imports `parts`, `kernels` and `pack`.
"""
