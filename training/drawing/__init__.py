"""What families of drawn pictures are made of: a module draws each family, a few with parts in modules of their own."""
