"""Families of encoders beside their references: the benchmark, the program of one contender, a module a family.

May import `forwards`.
"""
