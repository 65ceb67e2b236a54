"""Judges an encoder on real pictures. Serving does not use it."""
