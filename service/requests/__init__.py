"""What a request is behind any route: parameters, admission, decoding, embedding, results.

Imports `engine`, and knows no HTTP.
"""
