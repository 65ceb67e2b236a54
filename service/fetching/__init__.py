"""Images fetched from URLs: which may be, from which addresses, and within which limits."""
