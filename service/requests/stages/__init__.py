"""The stages of one request's images and texts, each from its bytes or characters to its outcome.

Imports the request's other parts, and `engine` for jobs.
"""
