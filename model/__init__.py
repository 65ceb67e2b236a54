"""Images in, embeddings out: everything that knows about pixels, tokens and weights, and nothing about HTTP."""
