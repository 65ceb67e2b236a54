"""The simulator beside real servers: calibrates its inputs on one, then predicts other loads.

May import `servers`, and `loadtest.simulate`.
"""
