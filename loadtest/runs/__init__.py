"""Runs and their figures: one run, a sweep of runs, two compared, and gates on the outcome.

Imports `traffic` and `sending`. Writes no report.
"""
