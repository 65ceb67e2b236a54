"""What single formats need beyond Pillow: what of a file it is to see, and what it reads wrongly.

Imports nothing of `images` but `metered`.
"""
