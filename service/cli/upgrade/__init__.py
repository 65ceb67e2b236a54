"""`packlight upgrade-check`: whether an index that one server has filled can be kept with another. Loads no model."""
