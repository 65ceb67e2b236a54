"""The HTTP application: ASGI layers, answers, errors as statuses; `bodies` reads requests, `routes` is the contract.

Imports `requests`, `planning` and `engine`, and starts no process.
"""
