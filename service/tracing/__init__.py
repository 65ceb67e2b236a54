"""Traces by OpenTelemetry: a span a request with its stages, a span a pack, and where they are sent."""
