#!/usr/bin/env bash
# LiteLLM: a picture as a data URI goes to Cohere and Jina as a picture, and to Voyage's multimodal models as a text.
#
# Versions: litellm 1.110.2. Seen on 2026-11-30.
# Behaviour: litellm.embedding takes a picture as a data URI in `input`, and looks for one for the providers cohere and
#   jina_ai. For voyage/voyage-multimodal-3 every string becomes {"type": "text"}, base64 and all; only an object
#   {"type": "image_url", ...} becomes an image. No error and no warning says so.
# Output seen (what a server of our own is asked for, with the same input):
#   cohere/embed-v4.0: an image
#   jina_ai/jina-clip-v2: an image
#   voyage/voyage-multimodal-3: a text
#   voyage/voyage-multimodal-3, an object: an image
# Why it matters: a program that changes its provider to Voyage's gets the vector of the letters of a PNG for each
#   picture. They are near one another whatever the pictures show, and no search finds anything by them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/python - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import litellm

# A red pixel.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
asked = []


class Server(BaseHTTPRequestHandler):
    """Answers all three providers, and keeps what it was asked for."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked.append(body)
        answer = {"object": "list", "model": body["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        if "cohere" in self.path:
            answer |= {"id": "1", "embeddings": {"float": [[1.0, 0.0]]}, "texts": [], "meta": {}}
        else:
            answer["data"] = [{"object": "embedding", "index": 0, "embedding": [1.0, 0.0]}]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def kind(body: dict) -> str:
    """What a body makes of the one input."""
    if "images" in body:
        return "an image"
    (given,) = body.get("inputs") or body.get("texts") or body["input"]
    if isinstance(given, dict) and "content" in given:
        (given,) = given["content"]
    is_text = isinstance(given, str) or "text" in given
    return "a text" if is_text else "an image"


with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    calls = {
        "cohere/embed-v4.0": (f"{url}/cohere/v2/embed", PICTURE),
        "jina_ai/jina-clip-v2": (f"{url}/v1", PICTURE),
        "voyage/voyage-multimodal-3": (f"{url}/v1", PICTURE),
        "voyage/voyage-multimodal-3, an object": (f"{url}/v1", {"type": "image_url", "image_url": {"url": PICTURE}}),
    }
    found = {}
    for name, (api_base, given) in calls.items():
        litellm.embedding(model=name.partition(",")[0], input=[given], api_base=api_base, api_key="none")
        found[name] = kind(asked[-1])
    server.shutdown()

for name, sent in found.items():
    print(f"{name}: {sent}")
as_stated = list(found.values()) == ["an image", "an image", "a text", "an image"]
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
