"""One connection below ASGI: uvicorn's protocol with bounds, and the parser of its requests."""
