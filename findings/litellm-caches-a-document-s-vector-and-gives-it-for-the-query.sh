#!/usr/bin/env bash
# LiteLLM: the cache of embeddings gives a query the vector of a document, and a server the vector of another server.
#
# Versions: litellm 1.110.2. Seen on 2026-11-30. A hit needs fastapi, orjson and soundfile, for which the package does not
#   ask; without them the second call raises ModuleNotFoundError.
# Behaviour: with litellm.cache set, the key is made of the model, the input and the parameters that OpenAI has. What other
#   providers add is sent to them and is not in the key: input_type (Cohere, Voyage), task (Jina), extra_body (vLLM's
#   mm_processor_kwargs), nor is api_base. The same text asked again with another of these is answered from the cache,
#   though Cohere's models make another vector of a search_query than of a search_document (docs.cohere.com, Embed API v2).
# Output seen (what a server of our own is asked for; two different requests of one text each):
#   cohere, no cache: 2 requests, input_type search_document, search_query
#   cohere, cache: 1 request, input_type search_document
#   extra_body, cache: 1 request, max_tokens 64
#   api_base, cache: 1 request, to the first server
# Why it matters: documents and queries with one text, budgets of one picture and two models' servers under one name all
#   share a vector, and nothing says so. Recall falls, or an index mixes two models. Give each its own model name in the
#   router or its own `cache={"namespace": ...}`, or keep vectors yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet litellm==1.110.2 fastapi==0.165.0 orjson==3.13.0 soundfile==0.14.0
LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/python - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import litellm
from litellm.caching.caching import Cache

asked = []


class Server(BaseHTTPRequestHandler):
    """Answers both routes, and keeps what it was asked for."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked.append((self.path, body))
        vector = [float(len(asked)), 0.0]
        if "texts" in body:
            answer = {"id": "1", "embeddings": {"float": [vector]}, "texts": body["texts"], "meta": {}}
        else:
            row = {"object": "embedding", "index": 0, "embedding": vector}
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            answer = {"object": "list", "model": body["model"], "data": [row], "usage": usage}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def requests(cached: bool, *calls: dict) -> list[tuple[str, dict]]:
    """What the server is asked for when these calls follow one another."""
    asked.clear()
    litellm.cache = Cache() if cached else None
    for call in calls:
        litellm.embedding(input=["a red bicycle"], api_key="none", caching=cached, **call)
    return list(asked)


with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    cohere = {"model": "cohere/embed-v4.0", "api_base": f"{url}/v2/embed"}
    both = [cohere | {"input_type": kind} for kind in ("search_document", "search_query")]
    openai = {"model": "openai/encoder", "api_base": f"{url}/first/v1"}
    budgets = [openai | {"extra_body": {"max_tokens": number}} for number in (64, 256)]
    plain, kept = requests(False, *both), requests(True, *both)
    sized = requests(True, *budgets)
    moved = requests(True, openai, openai | {"api_base": f"{url}/second/v1"})
    server.shutdown()


def count(found: list) -> str:
    return "1 request" if len(found) == 1 else f"{len(found)} requests"


for name, found in (("no cache", plain), ("cache", kept)):
    print(f"cohere, {name}: {count(found)}, input_type {', '.join(body['input_type'] for _, body in found)}")
print(f"extra_body, cache: {count(sized)}, max_tokens {', '.join(str(body['max_tokens']) for _, body in sized)}")
print(f"api_base, cache: {count(moved)}, to the {' and the '.join(path.split('/')[1] for path, _ in moved)} server")
as_stated = (
    [body["input_type"] for _, body in plain] == ["search_document", "search_query"]
    and [body["input_type"] for _, body in kept] == ["search_document"]
    and [body["max_tokens"] for _, body in sized] == [64]
    and [path.split("/")[1] for path, _ in moved] == ["first"]
)
sys.exit(0 if as_stated else "the behaviour has changed")
PYTHON
