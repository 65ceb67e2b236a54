"""From queued images to results: the seam, the scheduler, the thread that runs packs, and what packs cost.

Knows no request and no HTTP.
"""
