"""Commands that need no running server: `packlight embed` and `packlight plan`. Knows no HTTP server."""
