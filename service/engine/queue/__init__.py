"""One class's items in order of arrival, and the space that they take in a pack: pure, as the scheduler is."""
