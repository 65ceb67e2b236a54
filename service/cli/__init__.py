"""Commands that need no running server: `packlight embed` and `packlight plan`."""
