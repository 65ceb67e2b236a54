"""Stands in for Grafana: answers its health check, once what is provisioned lies where the real one looks for it."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ETC = Path("/etc/grafana")


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        healthy = self.path == "/api/health" and _provisioned()
        self.send_response(200 if healthy else 503)
        self.end_headers()


def _provisioned() -> bool:
    """Both providers can be read, the board is JSON, and the database's folder can be written to."""
    Path("/var/lib/grafana/written").touch()
    providers = [ETC / "provisioning/datasources/prometheus.yml", ETC / "provisioning/dashboards/packlight.yml"]
    board = json.loads((ETC / "dashboards/packlight.json").read_text())
    return all("apiVersion: 1" in path.read_text() for path in providers) and bool(board["panels"])


if __name__ == "__main__":
    HTTPServer(("0.0.0.0", 3000), Health).serve_forever()
