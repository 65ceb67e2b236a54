"""Prepared requests in, a record of each out: senders, their processes, and what answers say.

Imports `traffic`.
"""
