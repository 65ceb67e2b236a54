"""Results as text, JSON and HTML with charts. Computes no figure of its own."""
