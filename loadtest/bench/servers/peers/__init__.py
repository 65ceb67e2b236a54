"""Programs that run in the virtual environments of other servers. They import nothing of this project."""
