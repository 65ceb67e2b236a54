"""Another model in the place of the served one, while requests run."""
