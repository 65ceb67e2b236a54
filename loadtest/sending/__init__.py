"""The sending of prepared requests: senders and their processes, a record of each request, what answers say.

Imports `traffic` and `errors`.
"""
