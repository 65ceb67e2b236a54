"""A workload and a budget in; a strategy and settings out, with reasons.

Imports `engine` for what packs cost.
"""
