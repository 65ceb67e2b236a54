"""The HTTP application: ASGI layers, bodies, answers, and errors as statuses; `routes` is the contract.

Imports `requests`, `planning` and `engine`, and starts no process.
"""
