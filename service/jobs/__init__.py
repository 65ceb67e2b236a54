"""Many pictures at once, without a server: from a source, through decoding and packs, to rows in a file.

Rows stand in the order of the source. Nothing here reads a command line. Imports `requests`, `engine`, and what is
below them.
"""
