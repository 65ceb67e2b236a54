"""One module per family of vision encoders."""
