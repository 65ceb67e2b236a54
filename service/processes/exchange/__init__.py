"""Images and texts from HTTP processes to engine processes, and vectors back: messages, sockets, shared memory.

May import what stands beside it in `processes` for messages, and `engine`.
"""
