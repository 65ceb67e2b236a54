"""`packlight check`: whether a model, or a server, computes what it should here, how fast, and in how much memory."""
