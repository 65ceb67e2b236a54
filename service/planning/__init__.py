"""A workload and a budget in; a strategy, settings and reasons out.

Imports `engine` for what packs cost.
"""
