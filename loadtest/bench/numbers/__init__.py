"""How far vectors that should be the same are apart."""
