"""What a user could take instead of Packlight: other makers' engines and servers, each in an environment of its own.

What has `forward`, `model`, `server`, `tower` or `write` in its name runs there. It imports nothing of this project but
its neighbours and `loadtest.bench.forwards.rounds`.
"""
