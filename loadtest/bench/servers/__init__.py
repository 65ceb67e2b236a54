"""Servers that the bench starts, ours and others', and what their processes take of the machine."""
