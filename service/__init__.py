"""Requests in, responses out: the command line, settings, and what stands between a caller and the model.

Torch is imported only where a model is loaded.
"""
