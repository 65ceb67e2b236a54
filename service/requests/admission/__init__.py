"""Which requests are let in, and what each holds until its end: tokens of the queue, and bytes.

Imports `engine` for the rate of devices, and no stage of `requests`.
"""
