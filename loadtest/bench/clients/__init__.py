"""Clients of the bench, and the figures of what they were answered. Imports `servers`."""
