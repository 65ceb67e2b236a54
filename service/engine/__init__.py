"""From queued images to results: the client interface, the scheduler, the threads that run packs, and their cost.

Knows no request and no HTTP. May import `model`, `metrics`, `limits` and what stands below them.
"""
