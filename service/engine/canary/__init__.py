"""Pictures and texts with known vectors that run in ordinary packs: when they run, and what their vectors must be.

Knows no picture and no file; `service.canary` has those.
"""
