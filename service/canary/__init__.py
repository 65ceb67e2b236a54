"""The pictures and texts of the canary, and the file of their vectors: drawn, recorded on a CPU, kept, and read.

May import `requests` for documents, and `loading` in the process that records.
"""
