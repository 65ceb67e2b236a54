"""Images in, embeddings out: everything that knows pixels, tokens and weights, and nothing about HTTP.

Imports neither `service` nor asyncio.
"""
