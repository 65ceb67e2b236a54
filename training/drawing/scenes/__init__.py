"""Photo-like scenes: a stage with a backdrop, and things, plants and creatures on it."""
