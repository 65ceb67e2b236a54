"""Image size, budget and strategy in; segments with grids out. Pure integers; imports only `model.errors`."""
