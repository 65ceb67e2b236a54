"""What an encoder is worth on real pictures. No part of what serves."""
