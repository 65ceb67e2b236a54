"""Screenshots: a screen, and the applications on it."""
