"""Stands in for the Hugging Face hub where there is none: one repository, a token asked for.

python hub.py FOLDER PORT TOKEN
"""

import json
import sys
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """`folder` and `token` are set before the first request."""

    folder: Path
    token: str

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        names = sorted(entry.name for entry in self.folder.iterdir())
        name = path.rsplit("/", 1)[-1]
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/") and "/tree/" in path:
            self._answer(200, json.dumps([self._entry(name) for name in names]).encode(), {})
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in names]
            self._answer(200, json.dumps({"id": "m", "sha": COMMIT, "siblings": siblings}).encode(), {})
        elif "/resolve/" in path and name in names:
            data = (self.folder / name).read_bytes()
            self._answer(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(data).hexdigest()}"'})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _entry(self, name: str) -> dict[str, object]:
        data = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(data), "oid": sha256(data).hexdigest()}

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    folder, port, Hub.token = sys.argv[1:]
    Hub.folder = Path(folder)
    ThreadingHTTPServer(("127.0.0.1", int(port)), Hub).serve_forever()


if __name__ == "__main__":
    main()
