"""Families of drawn pictures, a module each, and what they share."""
