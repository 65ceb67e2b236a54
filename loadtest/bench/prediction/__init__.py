"""Whether the simulator tells what a real server does: calibrates its inputs on one, then predicts other loads."""
