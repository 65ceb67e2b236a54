"""Trains packlight-tiny on drawn pictures. Serving does not use it."""
