"""Results as text, JSON and HTML with charts. The figures come from `runs`."""
