"""Programs that the tests of whole servers run: servers and engines with faults, a small disk, and endless tests."""
