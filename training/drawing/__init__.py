"""Families of drawn pictures. One module draws each family, and some have parts in further modules."""
