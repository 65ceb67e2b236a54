"""Request bodies: received within limits of bytes and time, decoded, and taken apart into images and parameters."""
