"""The page at `/docs`: ours, around Swagger UI's files, which come in a package. Nothing is loaded from elsewhere."""
