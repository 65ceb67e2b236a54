"""Commands that need no running server: `packlight embed`, `packlight plan` and others. Knows no HTTP server."""
