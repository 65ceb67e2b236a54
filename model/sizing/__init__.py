"""From an image's size, budget and strategy to segments with grids. Pure integers; imports only `model.errors`."""
