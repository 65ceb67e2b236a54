"""A fleet of servers as discrete events: what it would do, without running it. `python -m loadtest.simulate --help`.

It sends no HTTP. It imports the service's own `Scheduler` and `Admission` and the sizing of images, because a copy of
them would drift from what is served. It loads no model and starts no process.

Its requests are all interactive, and a host has one pack under way at a time.
"""
