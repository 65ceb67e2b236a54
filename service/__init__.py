"""Requests in, responses out: the command line, settings, and all that stands between a caller and the model.

Only `loading` imports torch, when it is called.
"""
