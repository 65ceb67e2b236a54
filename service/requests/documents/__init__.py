"""Documents: texts and images of a request that become one vector, by models that fuse them."""
