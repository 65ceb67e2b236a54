"""A soak: hours of mixed load on a real server while faults are struck, and what must have held at the end."""
