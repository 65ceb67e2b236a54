"""What single formats need beyond Pillow: what of a file it is to see, and what it reads wrongly.

Imports of `images` only `colour`, `metered`, `orientation` and `pillow`.
"""
